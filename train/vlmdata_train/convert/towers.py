"""Checks of a model's tower that several families of published models need."""

from __future__ import annotations

from typing import Any

from vlmdata_train.encoders.hf_vision import HfVisionTower


def is_last_layer_of(encoder: Any, *kinds: str, extra: int, norm: bool = True) -> bool:
    """Return whether a tower gives the last layer of a model of one of these types, at the model's own image size.

    `extra` is the number of tokens that the tower removes before the patches. `norm` is whether it applies the last norm.
    """
    if type(encoder) is not HfVisionTower or encoder.model.config.model_type not in kinds:
        return False
    count = encoder.model.config.num_hidden_layers
    return (encoder.layers, encoder.extra, encoder.norm, encoder.interpolate) == ([count], extra, norm, False)
