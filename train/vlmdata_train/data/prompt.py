"""The tokens of one sample, with their labels and the places of its images."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vlmdata_train.data.document import Media
from vlmdata_train.model.batch import IGNORE
from vlmdata_train.model.written import Run


@dataclass(frozen=True)
class PlacedImage:
    """An image or a video of a prompt, and the tokens that are written for it: image tokens, and perhaps literal tokens."""

    picture: Media
    start: int  # index of the first token that is written for the image
    end: int  # index after the last one
    runs: tuple[Run, ...]
    several: bool = False  # the sample had more than one image before it was cut

    @property
    def tokens(self) -> int:
        """Number of image tokens, without literal tokens."""
        return sum(run.tokens for run in self.runs)


@dataclass(frozen=True)
class Prompt:
    """The tokens of one sample. The images are in the order of the tokens."""

    input_ids: list[int]
    labels: list[int]  # one for each of input_ids; IGNORE for a token without a loss
    images: list[PlacedImage]
    question: list[int] = field(default_factory=list)  # for an abstractor that reads the question; see `Prompter`
    blank_answers: int = 0  # empty or blank messages of the assistant, which have no loss
    unseen_turns: int = 0  # texts that were left out, because the model cannot see their boxes

    def answer_tokens(self) -> int:
        """Return how many tokens have a loss."""
        return sum(label != IGNORE for label in self.labels)


def truncate(prompt: Prompt, max_tokens: int) -> Prompt:
    """Return the prompt, cut to at most `max_tokens` tokens.

    An image is never cut. If the tokens of an image do not fit as a whole, the result ends before the image.
    """
    end = min(max_tokens, len(prompt.input_ids))
    cut = next((number for number, image in enumerate(prompt.images) if image.end > end), None)
    if cut is not None:
        end = min(end, prompt.images[cut].start)
    return replace(prompt, input_ids=prompt.input_ids[:end], labels=prompt.labels[:end], images=prompt.images[:cut])
