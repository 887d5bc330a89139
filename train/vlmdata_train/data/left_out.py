"""Count the samples that training leaves out, by reason, from the lengths that the loader measured.

The loader measures the length of each sample once and caches it. If a sample is left out, the cache holds a code of the reason
instead of a length. The code is greater than the number of tokens in any row. So the loader drops the sample from its packs,
and every later run reports the same counts.
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
from vlmdata.sizes import counted
from vlmdata_train.data.plain_text import plain

DIALOGUE = {  # reasons of `vlmdata.readers.dialogue`
    "no_turns": "the conversation has no turns, or they are not a list of objects",
    "no_user_turn": "the conversation has no turn of the user",
    "no_assistant_turn": "the conversation has no turn of the assistant",
    "unknown_role": "a turn has an unknown role (known roles: user, assistant, system, tool and their aliases)",
    "unknown_part": "a message has a part that is not a text or an image",
    "more_placeholders_than_images": "the conversation has more placeholders than images",
    "more_images_than_placeholders": "the conversation has more images than placeholders",
    "images_both_in_parts_and_beside": "the sample has images both inside and outside the parts of its messages",
    "no_file": "the conversation names an image that the sample does not contain",
    "bad_tool_call": "a tool call has no name, or its arguments are not an object",
    "bad_tools": "`tools` is not a list of JSON schemas",
    "bad_turns": "`turns` does not have the expected form",
    "bad_reasoning": "a message has reasoning that is not a string, or has reasoning twice",
    "bad_weight": "the weight of a message is not a number",
    "bad_name": "the name of a speaker is not a string",
    "bad_tool_call_id": "the id of a tool call is not a string",
    "bad_encoding": "a text contains half of a surrogate pair",
}
FIRST_REASON_CODE = 1 << 30  # greater than the number of tokens in any row; a code is this number plus the reason's number
HELD_OUT = "held_out"  # on the other side of the held-out split; these samples are not reported
REASONS = {
    HELD_OUT: "`held_out.fraction` assigns the sample to the other side of the split",
    "no_text": "the sample, or a turn of its conversation, has no text",
    "no_answer": "the conversation has no answer",
    "empty_answer": "every answer is empty or blank",
    "no_loss": "no message has a loss: every message has the weight 0, or `loss: last` excludes it",
    "no_answer_left": "the first `batches.sample_tokens` tokens of the sample contain no token with a loss",
    "chat_template": "the chat template refuses the conversation",
    "unreadable": "the members of the sample do not have the expected form",
    "damaged": "the tar is damaged at this sample",
    **DIALOGUE,
    **{reason: f"an image cannot be used: {meaning}" for reason, meaning in sorted(IMAGE_REASONS.items())},
    # last, so that the codes of the other reasons in caches, and with them the order of a run that resumes, stay the same
    "boxes_out_of_view": "no text is left, because the boxes of its texts are outside of the model's picture",
}
_NUMBERS = {reason: number for number, reason in enumerate(REASONS)} | {"damaged": DAMAGED - FIRST_REASON_CODE}
_SHOWN = 4  # reasons that get a separate line in the terminal
_DETAIL = 200  # characters of a detail that the terminal shows
PromptOf = Callable[[Mapping[str, Any]], Any]


class UnusableSample(Exception):
    """Raised if no prompt can be made from a sample. `reason` is a key of REASONS. `detail` may say more about this sample."""

    def __init__(self, reason: str, detail: str = "") -> None:
        assert reason in REASONS, reason
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def reason_code(reason: str) -> int:
    """Return the code that the cache holds instead of a length if a sample is left out for this reason."""
    return FIRST_REASON_CODE + _NUMBERS[reason]


@dataclass
class LeftOutCounts:
    """Counts of the samples on one side of the held-out split, in one dataset or in all datasets of a mixture."""

    samples: int = 0  # all samples on this side, used or left out
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[int, int]] = field(default_factory=dict)  # first sample of each reason: (dataset, row)

    @property
    def used(self) -> int:
        """Number of used samples."""
        return self.samples - self.reasons.total()

    def add(self, dataset: int, lengths: Lengths) -> None:
        """Add the samples of a dataset.

        A sample with alternative captions is left out only if all captions that it can draw are left out.
        """
        values = np.asarray(lengths.values)
        if lengths.starts is not None:
            can = lengths.can_be_drawn()
            least = np.minimum.reduceat(np.where(can, values, DAMAGED), lengths.starts[:-1])
            first = np.flatnonzero(can)[np.searchsorted(np.flatnonzero(can), lengths.starts[:-1])]  # caption of each sample
            values = np.where(least < FIRST_REASON_CODE, least, values[first])
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
        """Return the counts for the log, with an example for each reason.

        The example is the first sample that was left out for this reason, as "TAR KEY", with details of what is wrong with it.
        To get the details, `prompt` (`Reading.prompt`) is called with the sample. The error that it raises holds them.
        """
        reasons = self.reasons.most_common()
        first = {reason: place_of(plan, *self.first[reason]) for reason, _ in reasons}
        found = ((reason, detail_of(plan, *self.first[reason], prompt)) for reason, _ in reasons)
        details = {reason: detail for reason, detail in found if detail}
        return {"samples": self.samples, "used": self.used, "reasons": dict(reasons), "first": first, "details": details}


def count_left_out(plan: PackedPlan) -> LeftOutCounts:
    """Count the used and left-out samples in a stream's datasets. The length of a left-out sample is the code of its reason."""
    found = LeftOutCounts()
    for number, lengths in enumerate(plan.lengths):
        found.add(number, lengths)
    return found


def detail_of(plan: PackedPlan, dataset: int, row: int, prompt: PromptOf) -> str:
    """Return details of why a sample is left out, or "" if there are none or the sample cannot be read from this machine."""
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
    """Return the address of a sample's tar, without secrets, and the sample's key, as one string."""
    found = plan.datasets[dataset]
    (place,) = found.index.locate(np.array([row]))
    return f"{redacted(found.address(place.shard))} {place.key}"


def left_out_lines(record: dict[str, Any], data: str) -> list[str]:
    """Return the lines that show a record of `LeftOutCounts.record` in a terminal. `data` is the name of the data."""
    reasons = list(record["reasons"].items())
    lines = [f"left out: {record['samples'] - record['used']:,} of {counted(record['samples'], 'sample')} of {data}"]
    for reason, count in reasons[:_SHOWN]:
        detail = record["details"].get(reason)
        first = record["first"][reason] + (f" ({detail[:_DETAIL]})" if detail else "")
        lines.append(f"  {count:>10,}  {reason}: {REASONS[reason]}; the first is {plain(first)}")
    if len(reasons) > _SHOWN:
        rest = ", ".join(f"{reason} {count:,}" for reason, count in reasons[_SHOWN:])
        lines.append(f"              and {rest}")
    return lines
