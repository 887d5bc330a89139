"""The tokens of one sample, with their labels and the places of its images."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vlmdata_train.data.document import Picture
from vlmdata_train.model.batch import IGNORE


@dataclass(frozen=True)
class Prompt:
    """The tokens of one sample. Image i has `image_counts[i]` tokens, the first of them at `image_starts[i]`."""

    input_ids: list[int]
    labels: list[int]  # one for each of input_ids; IGNORE for a token without a loss
    images: list[Picture]
    image_starts: list[int]
    image_counts: list[int]
    blank_answers: int = 0  # empty or blank messages of the assistant, which have no loss

    def answer_tokens(self) -> int:
        """Return how many tokens have a loss."""
        return sum(label != IGNORE for label in self.labels)


def truncate(prompt: Prompt, max_tokens: int) -> Prompt:
    """Return the prompt, cut to at most `max_tokens` tokens.

    An image is never cut. If it does not fit as a whole, the result ends before the image.
    """
    end = min(max_tokens, len(prompt.input_ids))
    kept = 0
    for start, count in zip(prompt.image_starts, prompt.image_counts, strict=True):
        if start + count > end:
            end = min(end, start)
            break
        kept += 1
    return replace(
        prompt, input_ids=prompt.input_ids[:end], labels=prompt.labels[:end], images=prompt.images[:kept],
        image_starts=prompt.image_starts[:kept], image_counts=prompt.image_counts[:kept],
    )  # fmt: skip
