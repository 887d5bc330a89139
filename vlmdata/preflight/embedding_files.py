"""Finds files of embeddings that cannot be from the model whose embeddings they are compared with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vlmdata.models.clip_names import embedding_width
from vlmdata.similarity.array_files import npy_shape
from vlmdata.step import Step
from vlmdata.steps.clip_score import ClipScore


def other_widths(steps: Iterable[Step]) -> Iterator[str]:
    """Yield a line for each file of embeddings whose width differs from that of the model that the recipe embeds with.

    The steps have passed their own checks.
    """
    steps = tuple(steps)
    makers = {step.column("embedding"): step for step in steps if isinstance(step, ClipScore)}
    for step in steps:
        files = step.embedding_files()
        maker = next((makers[name] for name in step.columns_read() if name in makers), None)
        width = embedding_width(maker.model) if maker and files else None
        for path in files if width else ():
            own = npy_shape(path, step.name)[1]
            if maker and own != width:
                yield (
                    f"{step.name}: {path} has embeddings of width {own}, but those of {maker.name} ({maker.model}) have width "
                    f"{width}. Give a file from that model, or set {maker.name}.model to the model of the file"
                )
