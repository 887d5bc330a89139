"""The places of a model's weights, which stay valid while the weights themselves are replaced, cast and sharded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """Where a weight or a buffer of a model is: a module and the name in it."""

    owner: nn.Module
    leaf: str

    @property
    def tensor(self) -> Tensor:
        """The tensor that is there now."""
        tensor: Tensor = getattr(self.owner, self.leaf)
        return tensor


def unshared(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return (name, tensor) of parameters and persistent buffers. A shared tensor is listed once, with its first name."""
    return [(name, place.tensor) for name, place in first_places(weight_places(model)).items()]


def weight_places(model: nn.Module) -> dict[str, Place]:
    """Return the place of each parameter and persistent buffer by name. A tied weight has several places.

    Places stay valid when LoRA is added, because a layer with an update still owns its weight.
    """
    names = [name.rpartition(".") for name in model.state_dict(keep_vars=True)]
    return {f"{owner}{dot}{leaf}": Place(model.get_submodule(owner), leaf) for owner, dot, leaf in names}


def first_places(places: Mapping[str, Place]) -> dict[str, Place]:
    """Return the places without the second places of tied weights."""
    seen: dict[int, str] = {}
    for name, place in places.items():
        seen.setdefault(id(place.tensor), name)
    return {name: places[name] for name in seen.values()}
