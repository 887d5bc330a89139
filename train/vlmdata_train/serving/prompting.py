"""Makes the prompt of a request, in the same way as `chat` does."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdata.images.facts import ImageError
from vlmdata.step import RecipeError
from vlmdata.untrusted import one_line
from vlmdata_train.data.document import Document, Media, Turn
from vlmdata_train.data.prompt import Prompt
from vlmdata_train.data.prompts import Prompter
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.serving.generation import Asked
from vlmdata_train.serving.refused import Refused
from vlmdata_train.serving.request import Message, Question

UNSTATED_CONTEXT = 32_768  # tokens, for a language model whose configuration states no number of positions
CHARACTERS = 100  # of a text for each token of the context; a longer text is refused before it is tokenized


@dataclass(frozen=True)
class Prompting:
    """Makes prompts for one checkpoint.

    A checkpoint of stage `align` can only write captions. It continues the text of the last message as the beginning of a
    caption of all images, and the other texts are left out.
    """

    prompter: Prompter
    context: int  # tokens of a prompt and its answer together
    is_aligned_only: bool

    def check(self) -> None:
        """Raise RecipeError if the checkpoint's tokenizer has no usable chat template, which conversations need."""
        self._prompt([Message("user", ["Is this a question?"])])

    def asked(self, question: Question) -> Asked:
        """Return the prompt of a request with how to answer it.

        The answer ends at the end of the context. Raises Refused if there is no room for an answer, or if the chat template
        refuses the messages.
        """
        texts = [part for message in question.messages for part in message.parts if isinstance(part, str)]
        if sum(map(len, texts)) > CHARACTERS * self.context:
            raise self._too_long(f"of more than {CHARACTERS * self.context:,} characters")
        try:
            prompt = self._prompt(question.messages)
        except RecipeError:
            raise
        except (ValueError, ImageError) as error:
            raise Refused(
                f"the messages cannot be written as a prompt: {one_line(error)[:300]}", code="invalid_messages"
            ) from None
        tokens = len(prompt.input_ids)
        if tokens == 0:
            raise Refused("the prompt is empty", code="invalid_messages")
        if tokens >= self.context:
            raise self._too_long(f"of {tokens:,} tokens")
        most = min(question.max_tokens, self.context - tokens)
        return Asked(prompt, question.decoding, most, question.stop, question.alternatives)

    def _too_long(self, size: str) -> Refused:
        message = f"a prompt {size} leaves no room for an answer in the context of the model, which is {self.context:,} tokens"
        return Refused(message, code="context_length_exceeded")

    def _prompt(self, messages: list[Message]) -> Prompt:
        if self.is_aligned_only:
            media = [part for message in messages for part in message.parts if isinstance(part, bytes)]
            last = [part for part in messages[-1].parts if isinstance(part, str)]
            return self.prompter.beginning(media, "\n".join(last))
        positions, roles, turns = list[str | Media](), list[str](), list[Turn | None]()
        for message in messages:
            for number, part in enumerate(message.parts or [""]):
                positions.append(part)
                roles.append(message.role)
                turns.append(Turn(begins=True) if number == 0 else None)
        media = [part for part in positions if isinstance(part, bytes)]
        return self.prompter.question(self.prompter.messages(Document(positions, roles, turns)), media)


def context_of(model: VisionLanguageModel) -> int:
    """Return the largest number of tokens for which the language model has positions."""
    stated = getattr(model.language.config.get_text_config(), "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else UNSTATED_CONTEXT
