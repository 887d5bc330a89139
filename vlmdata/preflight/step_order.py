"""Finds steps that come before the step that makes what they need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from vlmdata.row import flatten
from vlmdata.step import Source, Step
from vlmdata.steps.download import Download
from vlmdata.steps.resize import Resize


def too_early(source: Source, steps: tuple[Step, ...], rows: pa.Table | None, where: str) -> Iterator[str]:
    """Yield a line for each step that needs what only a fetched or resized image has, and has no such step before it.

    `rows` are some first rows of the source, or None if they are not known. `where` is the recipe's path.
    """
    given = given_fields(rows)
    if given is None:
        if not source.by_address:
            return
        given = set()
    if "data" in given:
        given |= {"blob", "size"}  # the worker that reads a source puts its bytes in a blob
    is_fetched = "blob" in given  # the source has the bytes, so `resize` alone sets the other fields
    makers = (Download, Resize) if is_fetched else (Download,)
    if not any(isinstance(step, Download) for step in steps) and not is_fetched:
        return  # one note says that all rows are dropped
    for number, step in enumerate(steps, 1):
        needed = set(step.fields_fetched()) - given - ({"blob"} if isinstance(step, Resize) and is_fetched else set())
        if not needed or any(isinstance(before, makers) for before in steps[: number - 1]):
            continue
        what = "the image itself" if "blob" in needed else " and ".join(f"images.{name}" for name in sorted(needed))
        makes = next((n for n, later in enumerate(steps, 1) if n > number and isinstance(later, makers)), None)
        problem = f"{where}, step {number}: {step.name} needs {what}, which the source does not give"
        if makes is None:
            yield f"{problem}. Put the step {'`resize`' if is_fetched else '`download`'} before step {number}"
            continue
        end = makes
        while end < len(steps) and isinstance(steps[end], Resize) and end != number - 1:
            end += 1
        behind = steps[end - 1].name if end > makes else steps[makes - 1].name
        yield f"{problem} and only step {makes}, {steps[makes - 1].name}, makes. Move step {number} behind step {end}, {behind}"


def texts_too_late(steps: Sequence[Step]) -> Iterator[str]:
    """Yield a line for each step that adds texts behind one that has examined all texts of a row, such as `augment`."""
    for number, step in enumerate(steps):
        ready = next((one for one in steps[:number] if one.needs_all_texts), None)
        if ready is not None and (step.adds_texts or step.gives):
            yield (
                f"{step.name} adds texts that {ready.name}, a step before it, has not examined. Put {ready.name} behind all "
                "steps that write texts"
            )


def given_fields(rows: pa.Table | None) -> set[str] | None:
    """Return the fields of `images` of which some image of the rows has a value, or None if the rows hold no image."""
    if rows is None:
        return None
    items = flatten(rows, "images").items
    items = items.filter(items.is_valid())
    if not len(items):
        return None
    return {field.name for field in items.type if items.field(field.name).null_count < len(items)}
