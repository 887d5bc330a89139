"""The image tower that a model in LLaVA's original format names, and its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from vlmdata_train.convert.published import Published
from vlmdata_train.model.hf_configs import published_config

_ON_THE_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_FOLDER = re.compile(r"\w[\w.-]*")
# a CLIP's names of its image half, with which a saved image tower may also begin without the first level
_TOWER = re.compile(r"(?:vision_model\.)?((?:embeddings|pre_layrnorm|encoder|post_layernorm)\..*)")


def tower_of(start: Published) -> Published:
    """Return the tower that `mm_vision_tower` names.

    The name is data, so no path in it is opened. Its last part is looked for as a folder in the model's own folder. Otherwise
    the name must have the form OWNER/NAME, and is a name on the hub. Raises ValueError if there is no such tower.
    """
    name = start.facts.get("mm_vision_tower")
    if not isinstance(name, str):
        raise ValueError(f"encoder: {start.name} names no image tower: its config.json lacks `mm_vision_tower`")
    last = name.rstrip("/").rpartition("/")[2]
    beside = Path(start.name) / last
    if _FOLDER.fullmatch(last) and (beside / "config.json").is_file():
        return Published(str(beside))
    remedy = f"Copy the folder of this tower into {start.name}"
    if not _ON_THE_HUB.fullmatch(name):
        raise ValueError(f"encoder: {start.name} names its image tower by a path, '{name}', which is not opened. {remedy}")
    tower = Published(name)
    if tower.find("config.json") is None:
        raise ValueError(f"encoder: the image tower '{name}' of {start.name} is not on the hub or cannot be reached. {remedy}")
    return tower


def tower_config(tower: Published) -> Any:
    """Return the configuration of the image half of a CLIP. Raises ValueError for another model."""
    kind = tower.facts.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise ValueError(f"encoder: {tower.name} is a {kind}, but LLaVA's original format has the tower of a CLIP")
    config = published_config(tower.name)
    return getattr(config, "vision_config", config)


def tower_weights(tower: Published) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (name in the files, our name, tensor) of each weight of the image half of a CLIP."""
    for theirs, tensor in tower.weights():
        if found := _TOWER.fullmatch(theirs):
            yield theirs, f"encoder.model.{found[1]}", tensor
