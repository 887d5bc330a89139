"""Which samples give nothing to learn from, and why: counted before the first step, from what the loader measured.

A sample's length is measured once and kept. For a sample that is left out its reason is kept in the length's place, as a
number over any row's tokens, so that the loader drops it from its packs and every later run reports the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlmdata.images.facts import REASONS as IMAGE_REASONS
from vlmdata.loader.index.find_tars import is_remote
from vlmdata.loader.lengths import DAMAGED, Lengths
from vlmdata.loader.packed import PackedPlan
from vlmdata.loader.read_samples import DamagedSample, Reader
from vlmdata.redact import redacted
from vlmdata_train.data.plain_text import plain

DIALOGUE = {  # what `vlmdata.readers.dialogue` finds wrong with a record
    "no_turns": "its turns are no list of objects",
    "no_user_turn": "nobody asks",
    "no_assistant_turn": "nobody answers",
    "unknown_role": "a role is none of user, assistant, system and tool, nor another name of these",
    "unknown_part": "a part of a content is neither a text nor an image",
    "more_placeholders_than_images": "it has more placeholders than images",
    "more_images_than_placeholders": "it has more images than placeholders",
    "images_both_in_parts_and_beside": "it has images in parts and beside them",
    "no_file": "it names an image that the sample does not have",
    "bad_tool_call": "a call of a tool has no name, or arguments that are no object",
    "bad_tools": "its tools are no list of schemas",
    "bad_turns": "its `turns` are of another shape",
    "bad_reasoning": "reasoning is no text, or said twice",
    "bad_weight": "a weight is no number",
    "bad_name": "a name is no text",
    "bad_tool_call_id": "the id of a call is no text",
    "bad_encoding": "a text has half a surrogate pair",
}
FIRST_REASON_CODE = 1 << 30  # tokens: more than any row holds; a reason's number is added
HELD_OUT = "held_out"  # on the other side of the split: not reported
REASONS = {
    HELD_OUT: "it belongs to the other side of held_out.fraction",
    "no_text": "it has no text",
    "no_answer": "nobody answers in its conversation",
    "empty_answer": "every answer that would be learned is empty",
    "no_loss": "no message of it has a loss: they have weight 0, or `loss: last` leaves out those that have",
    "no_answer_left": "the cut at batches.sample_tokens took everything that would be learned",
    "chat_template": "the chat template refuses it",
    "unreadable": "its members are not as expected",
    "damaged": "its tar is damaged there",
    **{reason: f"a conversation: {meaning}" for reason, meaning in DIALOGUE.items()},
    **{reason: f"an image: {meaning}" for reason, meaning in sorted(IMAGE_REASONS.items())},
}
_NUMBERS = {reason: number for number, reason in enumerate(REASONS)} | {"damaged": DAMAGED - FIRST_REASON_CODE}
_SHOWN = 4  # reasons with a line of their own in the terminal
_DETAIL = 200  # characters
PromptOf = Callable[[Mapping[str, Any]], Any]


class UnusableSample(Exception):
    """A sample that gives no prompt: `.reason` is one of REASONS, `.detail` may say more of this one."""

    def __init__(self, reason: str, detail: str = "") -> None:
        assert reason in REASONS, reason
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def reason_code(reason: str) -> int:
    """Return what stands for the length of a sample that is left out for this reason."""
    return FIRST_REASON_CODE + _NUMBERS[reason]


@dataclass
class LeftOutCounts:
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
            values = np.where(least < FIRST_REASON_CODE, least, values[lengths.starts[:-1]])
        rows = np.flatnonzero(values >= FIRST_REASON_CODE)
        numbers, firsts, counts = np.unique(values[rows] - FIRST_REASON_CODE, return_index=True, return_counts=True)
        self.samples += len(values)
        names = {number: reason for reason, number in _NUMBERS.items()}
        for number, first, count in zip(numbers.tolist(), firsts.tolist(), counts.tolist(), strict=True):
            if names[number] == HELD_OUT:
                self.samples -= count
                continue
            self.reasons[names[number]] += count
            self.first.setdefault(names[number], (dataset, int(rows[first])))

    def record(self, plan: PackedPlan, prompt: PromptOf) -> dict[str, Any]:
        """Return it for the log: also where the first sample of each reason lies, as "tar key", and what is wrong with it.

        `prompt` is the reading's, which says the latter.
        """
        most = self.reasons.most_common()
        first = {reason: place_of(plan, *self.first[reason]) for reason, _ in most}
        found = ((reason, detail_of(plan, *self.first[reason], prompt)) for reason, _ in most)
        details = {reason: detail for reason, detail in found if detail}
        return {"samples": self.samples, "used": self.used, "reasons": dict(most), "first": first, "details": details}


def count_left_out(plan: PackedPlan) -> LeftOutCounts:
    """Count what the measured lengths of a stream's datasets say is left out."""
    found = LeftOutCounts()
    for number, lengths in enumerate(plan.lengths):
        found.add(number, lengths)
    return found


def detail_of(plan: PackedPlan, dataset: int, row: int, prompt: PromptOf) -> str:
    """Return what more there is to say of why a sample is left out, of one that lies on this machine; or nothing."""
    found = plan.datasets[dataset]
    (place,) = found.index.locate(np.array([row]))
    if is_remote(found.address(place.shard)):
        return ""
    try:
        prompt(Reader(found).read(place))
    except UnusableSample as error:
        return " ".join(error.detail.split())
    except (OSError, DamagedSample):
        pass
    return ""


def place_of(plan: PackedPlan, dataset: int, row: int) -> str:
    """Return a sample's "tar key", without secrets of the address."""
    found = plan.datasets[dataset]
    (place,) = found.index.locate(np.array([row]))
    return f"{redacted(found.address(place.shard))} {place.key}"


def left_out_lines(record: dict[str, Any], data: str) -> list[str]:
    """Return for the terminal what `LeftOutCounts.record` made, of samples that `data` names."""
    reasons = list(record["reasons"].items())
    text = [f"left out: {record['samples'] - record['used']:,} of {record['samples']:,} samples of {data}"]
    for reason, count in reasons[:_SHOWN]:
        detail = record["details"].get(reason)
        first = record["first"][reason] + (f" ({detail[:_DETAIL]})" if detail else "")
        text.append(f"  {count:>10,}  {reason}: {REASONS[reason]}; the first is {plain(first)}")
    if len(reasons) > _SHOWN:
        rest = ", ".join(f"{reason} {count:,}" for reason, count in reasons[_SHOWN:])
        text.append(f"              and {rest}")
    return text
