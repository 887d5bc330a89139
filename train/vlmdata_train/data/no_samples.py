"""Raise an error if the data has no usable sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlmdata.loader.packed import PackedPlan
from vlmdata.sizes import counted
from vlmdata.step import RecipeError
from vlmdata_train.data.left_out import REASONS, LeftOutCounts, count_left_out, detail_of
from vlmdata_train.data.plain_text import plain
from vlmdata_train.data.reading import Reading

READABLE = "an image with its caption (jpg and txt), or a JSON with `texts` and `metadata`, or `conversations`, or `messages`"
_MEMBERS = 8  # how many members of a sample the error names


def check_used(plan: PackedPlan, data: Any, reading: Reading, where: str) -> None:
    """Raise RecipeError if one of the datasets in the data has no sample that the reading can use.

    If the reading is for held-out samples, one usable sample in all datasets together is enough. `where` is the recipe's key
    that the error names.
    """
    if reading.wants_held_out:
        found = count_left_out(plan)
        if found.samples == 0:
            raise RecipeError(
                f"held_out.fraction: the value {reading.held_out} holds out no sample of {data}."
                " Raise the fraction, or set `held_out.path`."
            )
        if found.used == 0:
            held_out = counted(found.samples, "held-out sample")
            raise RecipeError(
                f"held_out.fraction: none of the {held_out} of {data} can be used ({_counts(found)}). Raise the fraction."
            )
        return
    for number in range(len(plan.datasets)):
        found = LeftOutCounts()
        found.add(number, plan.lengths[number])
        if found.samples == 0:
            raise RecipeError(
                f"held_out.fraction: the value {reading.held_out} leaves no sample of {plan.datasets[number].name} to train on."
                " Lower the fraction."
            )
        if found.used == 0:
            raise RecipeError(f"{where}: {_why_none(plan, number, found, reading)}")


def _why_none(plan: PackedPlan, dataset: int, found: LeftOutCounts, reading: Reading) -> str:
    """Return a text that says why no sample can be used: the reasons, what the first sample contains, and what is expected."""
    text = f"none of the {counted(found.samples, 'sample')} of {plan.datasets[dataset].name} can be used ({_counts(found)}). "
    reason = found.reasons.most_common(1)[0][0]
    if reason == "no_answer_left":
        side = reading.plan.facts.image_size
        return text + (
            f"A sample is cut to at most {reading.sample_tokens} tokens, and an image of {side} x {side} takes "
            f"{reading.plan.tokens_of(side, side)} of them. Raise `batches.sample_tokens`."
        )
    number, row = found.first[reason]
    (place,) = plan.datasets[number].index.locate(np.array([row]))
    first, detail = f"{place.key} of {plan.datasets[number].address(place.shard)}", detail_of(plan, number, row, reading.prompt)
    if reason not in ("no_text", "unreadable"):
        return text + plain(f"The first is {first}: {detail or REASONS[reason]}")
    names = ", ".join(place.names[:_MEMBERS]) + (", ..." if len(place.names) > _MEMBERS else "")
    found_there = plain(f"The first, {first}, has the members {names}" + (f" ({detail})" if detail else ""))
    return f"{text}{found_there}. A sample must have {READABLE}"


def _counts(found: LeftOutCounts) -> str:
    """Return the counts as text, such as "no_text 5, damaged 1"."""
    return ", ".join(f"{reason} {count:,}" for reason, count in found.reasons.most_common())
