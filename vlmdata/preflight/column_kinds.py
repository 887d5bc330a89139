"""Finds steps that read embeddings or scores from a column that has none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from vlmdata.row import ROW
from vlmdata.step import Step
from vlmdata.steps.clip_score import ClipScore

EMBEDDINGS = ("embedding", "text_embedding")  # parameters of vlmdata's steps that name a column of embeddings
SCORES = ("score", "scores", "weights")  # those that name columns of numbers: one, or the keys of a mapping


def wrong_kinds(steps: Iterable[Step]) -> Iterator[str]:
    """Yield a line for each parameter that names a column of another kind, or of embeddings that are not stored.

    Columns whose type is known only in a run pass. The steps have passed their own checks.
    """
    steps = tuple(steps)
    unstored = {one.column("embedding"): one.name for one in steps if isinstance(one, ClipScore) and not one.embeddings}
    kinds: dict[str, pa.DataType] = {}
    for step in steps:
        for parameter, column in _columns_named(step):
            kind = kinds.get(column)
            is_of_rows = column.partition(".")[0] in ROW.names and kind is None
            if parameter in EMBEDDINGS and column in unstored:
                maker = unstored[column]
                yield f"{step.name}.{parameter}: {maker} stores no embeddings. Set {maker}.embeddings to true"
            elif parameter in EMBEDDINGS and (is_of_rows or (kind is not None and not _holds_vectors(kind))):
                yield (
                    f"{step.name}.{parameter}: the column '{column}' holds no embeddings. Name one that does, such as "
                    "clip_score.embedding"
                )
            elif parameter in SCORES and (is_of_rows or (kind is not None and not _holds_numbers(kind))):
                numbers = sorted(name for name, one in kinds.items() if _holds_numbers(one))
                known = f", such as {', '.join(numbers[:5])}" if numbers else ""
                yield f"{step.name}.{parameter}: the column '{column}' holds no numbers. Name a measured score{known}"
        kinds.update((step.column(name), kind) for name, kind in step.columns_written().items())


def _columns_named(step: Step) -> list[tuple[str, str]]:
    """Return (parameter, column) for the columns of embeddings and scores that a step of vlmdata reads."""
    if not type(step).__module__.startswith("vlmdata."):
        return []
    read = step.columns_read()
    found = []
    for parameter in (*EMBEDDINGS, *SCORES):
        value = getattr(step, parameter, None)
        names = [value] if isinstance(value, str) else list(value) if isinstance(value, dict) else []
        found += [(parameter, name) for name in names if name in read]
    return found


def _holds_vectors(kind: pa.DataType) -> bool:
    if not pa.types.is_list(kind):
        return False
    item = kind.value_type
    if pa.types.is_binary(item) or pa.types.is_large_binary(item):
        return True
    is_list = pa.types.is_list(item) or pa.types.is_large_list(item) or pa.types.is_fixed_size_list(item)
    return is_list and (pa.types.is_floating(item.value_type) or pa.types.is_integer(item.value_type))


def _holds_numbers(kind: pa.DataType) -> bool:
    item = kind.value_type if pa.types.is_list(kind) else kind
    return pa.types.is_floating(item) or pa.types.is_integer(item) or pa.types.is_boolean(item)
