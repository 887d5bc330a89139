"""A chat with a checkpoint about images, in the terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlmdata.images.facts import ImageError
from vlmdata.step import RecipeError
from vlmdata_train.convert.restore import restore
from vlmdata_train.data.collate import Ready, build_batch, size_of
from vlmdata_train.data.document import Picture
from vlmdata_train.data.marks import IMAGE_MARK
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.data.prompt import Prompt
from vlmdata_train.data.prompts import Prompter
from vlmdata_train.loop.train_step import to_device
from vlmdata_train.model.generate import generate
from vlmdata_train.model.model import VisionLanguageModel


@dataclass
class Conversation:
    """A conversation with a model about images, which belong to the first turn.

    A checkpoint of stage `align` can only write captions, so it continues each question as the beginning of a caption.
    """

    model: VisionLanguageModel
    images: list[Picture]
    is_aligned_only: bool = False
    max_tokens: int = 256
    temperature: float = 0.0
    trusted: Sequence[str] = ()  # control tokens that answers may contain
    messages: list[dict[str, str]] = field(default_factory=list)

    @staticmethod
    def open(checkpoint: str, images: Sequence[str], *, device: str, max_tokens: int, temperature: float) -> Conversation:
        """Load a checkpoint and images. Raises RecipeError if one of them cannot be read."""
        pictures: list[Picture] = [_read(path) for path in images]
        model, recipe = restore(Path(checkpoint), device)
        return Conversation(model, pictures, recipe.stage == "align", max_tokens, temperature, recipe.trusted_tokens)

    def ask(self, text: str) -> str:
        """Return the answer to a question.

        The question and the answer are added to the conversation, except in stage `align`.
        """
        prompter = prompter_of(self.model, trusted=self.trusted)
        if self.is_aligned_only:
            return self._generate(prompter, prompter.beginning(self.images, text))
        marks = IMAGE_MARK * len(self.images) + "\n" if self.images and not self.messages else ""
        self.messages.append({"role": "user", "content": marks + prompter.clean(text)})
        answer = self._generate(prompter, prompter.question(self.messages, self.images))
        self.messages.append({"role": "assistant", "content": prompter.clean(answer)})
        return answer

    def _generate(self, prompter: Prompter, prompt: Prompt) -> str:
        ready = [Ready(prompt, "chat", "")]
        batch = build_batch(ready, self.model.plan, prompter.pad_id, packed_tokens=None, broken=Counter())
        tokens = generate(
            self.model, to_device(batch, next(self.model.parameters()).device), max_new_tokens=self.max_tokens,
            stop_ids=prompter.template.stop_ids, temperature=self.temperature,
        )  # fmt: skip
        return prompter.answer_text(tokens[0])


def talk(conversation: Conversation) -> None:
    """Answer questions from stdin, line by line, until the end of the input or an empty line."""
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            return
        print(conversation.ask(line.strip()), flush=True)


def _read(path: str) -> bytes:
    try:
        data = Path(path).read_bytes()
        size_of(data)
    except (OSError, ImageError) as error:
        raise RecipeError(f"cannot read {path} as an image: {error}") from None
    return data
