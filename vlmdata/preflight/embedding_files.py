"""Finds embeddings that no step stores, and files and models that differ from the model of the embeddings that a step reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vlmdata.models.clip_names import embedding_width, has_own_weights
from vlmdata.similarity.array_files import npy_shape
from vlmdata.step import Step
from vlmdata.steps.clip_score import ClipScore


def other_widths(steps: Iterable[Step]) -> Iterator[str]:
    """Yield a line for each file of embeddings whose width differs from that of the model that the recipe embeds with.

    The steps have passed their own checks.
    """
    steps = tuple(steps)
    makers = _makers(steps)
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


def other_models(steps: Iterable[Step]) -> Iterator[str]:
    """Yield a line for each step that embeds with another model than the one whose embeddings it reads.

    The cosines of such embeddings mean nothing, even if their widths agree.
    """
    steps = tuple(steps)
    makers = _makers(steps)
    for step in steps:
        for maker in [makers[name] for name in step.columns_read() if name in makers]:
            own, wanted = ([_needed(*names) for names in one.clip_weights()] for one in (step, maker))
            if own and own != wanted:
                yield (
                    f"{step.name}.model: {own[0]} is not the model of {maker.name}, which is {wanted[0]}. "
                    "Set the same model and pretrained in both"
                )


def _makers(steps: Iterable[Step]) -> dict[str, ClipScore]:
    return {step.column("embedding"): step for step in steps if isinstance(step, ClipScore)}


def _needed(model: str, pretrained: str) -> str:
    return model if has_own_weights(model) else f"{model} {pretrained}"
