"""Which samples give nothing to learn from, and why: counted before the first step, from what the loader measured.

A sample's length is measured once and kept. For a sample that is left out its reason is kept in the length's place, as a
number over any row's tokens, so that the loader drops it from its packs and every later run tells the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlmdata.images.facts import REASONS as IMAGE_REASONS
from vlmdata.loader.lengths import DAMAGED, Lengths
from vlmdata.loader.packed import PackedPlan
from vlmdata.redact import redacted
from vlmdata_train.plain import plain

LEFT_OUT = 1 << 30  # tokens: more than any row holds; a reason's number is added
HELD_OUT = "held_out"  # on the other side of the split: no reason to tell anybody of
REASONS = {
    HELD_OUT: "it belongs to the other side of held_out.fraction",
    "no_text": "it has no text",
    "no_answer": "nobody answers in its conversation",
    "empty_answer": "every answer that would be learned is empty",
    "no_answer_left": "the cut at batches.sample_tokens took everything that would be learned",
    "chat_template": "the chat template refuses it",
    "unreadable": "its members are not as expected",
    "damaged": "its tar is damaged there",
    **{reason: f"an image: {meaning}" for reason, meaning in sorted(IMAGE_REASONS.items())},
}
_NUMBERS = {reason: number for number, reason in enumerate(REASONS)} | {"damaged": DAMAGED - LEFT_OUT}
_SHOWN = 4  # reasons with a line of their own in the terminal


class Unusable(Exception):
    """A sample that gives no prompt: `.reason` is one of REASONS, `.detail` may say more of this one."""

    def __init__(self, reason: str, detail: str = "") -> None:
        assert reason in REASONS, reason
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def left_out(reason: str) -> int:
    """Return what stands for the length of a sample that is left out for this reason."""
    return LEFT_OUT + _NUMBERS[reason]


@dataclass
class LeftOut:
    """The samples of a dataset, or of all of a mixture, that one side of the split could have."""

    samples: int = 0  # without those of the other side
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[int, int]] = field(default_factory=dict)  # of each reason: a dataset's number and a row

    @property
    def used(self) -> int:
        """How many samples are used."""
        return self.samples - self.reasons.total()

    def add(self, dataset: int, lengths: Lengths) -> None:
        """Count the samples of a dataset. One with alternative captions is left out if all of them are."""
        values = np.asarray(lengths.values)
        if lengths.starts is not None:
            least = np.minimum.reduceat(values, lengths.starts[:-1])
            values = np.where(least < LEFT_OUT, least, values[lengths.starts[:-1]])
        rows = np.flatnonzero(values >= LEFT_OUT)
        numbers, firsts, counts = np.unique(values[rows] - LEFT_OUT, return_index=True, return_counts=True)
        self.samples += len(values)
        names = {number: reason for reason, number in _NUMBERS.items()}
        for number, first, count in zip(numbers.tolist(), firsts.tolist(), counts.tolist(), strict=True):
            if names[number] == HELD_OUT:
                self.samples -= count
                continue
            self.reasons[names[number]] += count
            self.first.setdefault(names[number], (dataset, int(rows[first])))

    def record(self, plan: PackedPlan) -> dict[str, Any]:
        """Return it for the log, with where the first sample of each reason lies, as "tar key"."""
        most = self.reasons.most_common()
        first = {reason: place_of(plan, *self.first[reason]) for reason, _ in most}
        return {"samples": self.samples, "used": self.used, "reasons": dict(most), "first": first}


def count_left_out(plan: PackedPlan) -> LeftOut:
    """Count what the measured lengths of a stream's datasets say is left out."""
    found = LeftOut()
    for number, lengths in enumerate(plan.lengths):
        found.add(number, lengths)
    return found


def place_of(plan: PackedPlan, dataset: int, row: int) -> str:
    """Return a sample's "tar key", without secrets of the address."""
    found = plan.datasets[dataset]
    (place,) = found.index.locate(np.array([row]))
    return f"{redacted(found.address(place.shard))} {place.key}"


def lines(record: dict[str, Any], data: str) -> list[str]:
    """Return for the terminal what `LeftOut.record` made, of samples that `data` names."""
    reasons = list(record["reasons"].items())
    text = [f"left out: {record['samples'] - record['used']:,} of {record['samples']:,} samples of {data}"]
    for reason, count in reasons[:_SHOWN]:
        text.append(f"  {count:>10,}  {reason}: {REASONS[reason]}; the first is {plain(record['first'][reason])}")
    if len(reasons) > _SHOWN:
        rest = ", ".join(f"{reason} {count:,}" for reason, count in reasons[_SHOWN:])
        text.append(f"              and {rest}")
    return text
