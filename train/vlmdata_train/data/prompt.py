"""One sample as tokens: which of them have a loss, and where its images stand."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vlmdata_train.data.document import Picture
from vlmdata_train.model.batch import IGNORE


@dataclass(frozen=True)
class Prompt:
    """Tokens of one sample. `image_starts[i]` is where image i begins, `image_counts[i]` how many tokens it takes."""

    input_ids: list[int]
    labels: list[int]  # aligned with input_ids; IGNORE where there is no loss
    images: list[Picture]
    image_starts: list[int]
    image_counts: list[int]
    blank_answers: int = 0  # messages of the assistant that say nothing, and so have no loss

    def answer_tokens(self) -> int:
        """Return how many tokens have a loss."""
        return sum(label != IGNORE for label in self.labels)


def truncate(prompt: Prompt, max_tokens: int) -> Prompt:
    """Return the longest beginning within `max_tokens` that splits no image: one that would be cut ends it instead."""
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
