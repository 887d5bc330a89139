"""A chat with a checkpoint about images and videos, in the terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.notes import is_quiet
from vlmdata.sizes import counted, noun
from vlmdata.step import RecipeError
from vlmdata_train.checks import frames_in
from vlmdata_train.convert.restore import restore
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.document import Media, Video
from vlmdata_train.data.marks import IMAGE_MARK, VIDEO_MARK
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.data.prompt import Prompt
from vlmdata_train.data.prompts import Prompter
from vlmdata_train.loop.train_step import to_device
from vlmdata_train.model.decoding import Decoding
from vlmdata_train.model.generate import GREEDY, generate
from vlmdata_train.model.model import VisionLanguageModel


@dataclass
class Conversation:
    """A conversation with a model about images and videos, which belong to the first turn.

    A checkpoint of stage `align` can only write captions, so it continues each question as the beginning of a caption.
    """

    model: VisionLanguageModel
    media: list[Media]
    is_aligned_only: bool = False
    max_tokens: int = 256
    decoding: Decoding = GREEDY
    trusted: Sequence[str] = ()  # control tokens that answers may contain
    messages: list[dict[str, str]] = field(default_factory=list)

    @staticmethod
    def open(
        checkpoint: str, images: Sequence[str], *, device: str, max_tokens: int = 256, decoding: Decoding = GREEDY,
        videos: Sequence[str] = (), fps: float = 1.0,
    ) -> Conversation:  # fmt: skip
        """Load a checkpoint, images, and videos, which are folders of frames at `fps` frames per second.

        The model's part `video` chooses the frames that are read. Without this part, each frame is an image. Raises RecipeError
        if something cannot be read.
        """
        media: list[Media] = [_read(path) for path in images]
        model, recipe = restore(Path(checkpoint), device)
        for folder in videos:
            media += _frames(folder, fps, model.plan.video)
        return Conversation(model, media, recipe.stage == "align", max_tokens, decoding, recipe.trusted_tokens)

    def ask(self, text: str) -> str:
        """Return the answer to a question.

        The question and the answer are added to the conversation, except in stage `align`.
        """
        prompter = prompter_of(self.model, trusted=self.trusted)
        if self.is_aligned_only:
            return self._generate(prompter, prompter.beginning(self.media, text))
        shown = [] if self.messages else self.media
        marks = "".join(VIDEO_MARK if isinstance(item, Video) else IMAGE_MARK for item in shown)
        self.messages.append({"role": "user", "content": marks + "\n" * bool(shown) + prompter.clean(text)})
        answer = self._generate(prompter, prompter.question(self.messages, self.media))
        self.messages.append({"role": "assistant", "content": prompter.clean_answer(answer)})
        return answer

    def _generate(self, prompter: Prompter, prompt: Prompt) -> str:
        ready = [Ready(prompt, "chat", "")]
        batch = build_batch(ready, self.model.plan, prompter.pad_id, packed_tokens=None, broken=Counter())
        tokens = generate(
            self.model, to_device(batch, next(self.model.parameters()).device), max_new_tokens=self.max_tokens,
            stop_ids=prompter.template.stop_ids, decoding=self.decoding,
        )  # fmt: skip
        return prompter.answer_text(tokens[0])


def talk(conversation: Conversation) -> None:
    """Answer questions from stdin, line by line, until the end of the input or an empty line."""
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            print("" if line else "\n", end="", file=sys.stderr, flush=True)  # after Ctrl-D, the cursor is behind the prompt
            return
        print(conversation.ask(line.strip()), flush=True)


def _frames(folder: str, fps: float, part: Any) -> list[Media]:
    """Return the frames of a folder as one video, or as images if the model has no part `video` (None).

    A single frame is an image, as in training.
    """
    paths = frames_in(folder)
    times = [number / fps for number in range(len(paths))]
    if part is None:
        are = noun(len(paths), "is an image", "are images")
        if not is_quiet():
            print(f"the model has no part `video`, so the {counted(len(paths), 'frame')} of {folder} {are}", file=sys.stderr)
        return [_read(path) for path in paths]
    if len(paths) == 1:
        return [_read(paths[0])]
    chosen: list[int] = part.choose(times)
    return [Video(tuple(_read(paths[number]) for number in chosen), tuple(times[number] for number in chosen))]


def _read(path: str | Path) -> bytes:
    """Return the bytes of an image. The image is decoded once, because the loader makes an image grey if that fails."""
    try:
        data = Path(path).read_bytes()
        decode(data)
    except (OSError, ImageError) as error:
        raise RecipeError(f"cannot read {path} as an image: {error}") from None
    return data
