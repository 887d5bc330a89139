"""Checks of a model's tower that several families of published models need."""

from __future__ import annotations

from typing import Any

from vlmdata_train.convert.published import Published
from vlmdata_train.encoders.hf_vision import HfVisionTower


def is_last_layer_of(encoder: Any, *kinds: str, extra: int, norm: bool = True) -> bool:
    """Return whether a tower gives the last layer of a model of one of these types, at the model's own image size.

    `extra` is the number of tokens that the tower removes before the patches. `norm` is whether it applies the last norm.
    """
    if type(encoder) is not HfVisionTower or encoder.model.config.model_type not in kinds:
        return False
    count = encoder.model.config.num_hidden_layers
    return (encoder.layers, encoder.extra, encoder.norm, encoder.interpolate) == ([count], extra, norm, False)


def check_normalisation(start: Published, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Raise ValueError if a published model does not normalise pixels by these numbers, which our tower cannot change."""
    own = (tuple(start.images.image_mean), tuple(start.images.image_std))
    if own != (mean, std):
        raise ValueError(f"encoder: {start.name} normalises pixels by {own}, but the trainer's tower does it by {(mean, std)}")
