"""Base class of encoders that use the tower of a published vision-language model, such as Qwen2-VL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.hf_configs import config_of_class, published_config
from vlmdata_train.model.placeholders import are_on

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class VisionHalf:
    """A tower from `name` (a published model) or `config` (random weights). Exactly one must be set."""

    kind: ClassVar[Any]  # the tower's class in transformers
    place: ClassVar[str]  # the tower's name in the whole model
    name: str | None = None
    config: dict[str, Any] | None = None  # fields of the tower's configuration

    def __post_init__(self) -> None:
        if (self.name is None) == (self.config is None):
            raise ValueError("set exactly one of name (published weights) and config (random weights)")

    def load_config(self) -> Any:
        """Return the tower's configuration, without any weights. Raises ValueError if `name` has another tower."""
        if self.config is not None:
            return config_of_class(self.kind.config_class, self.config)
        whole = published_config(str(self.name))
        config = getattr(whole, "vision_config", whole)
        needed = self.kind.config_class().to_dict()
        if not needed.keys() <= config.to_dict().keys():  # towers of mixtures of experts have classes of their own
            meant = self.kind.config_class.model_type
            raise ValueError(f"encoder: the tower of {self.name} is a {config.model_type}, but this part needs a {meant}")
        return config

    def load_model(self) -> nn.Module:
        """Return the tower of transformers with its weights."""
        if self.name is None or are_on():
            return self.kind(self.load_config())
        whole: Any = AutoModelForImageTextToText.from_pretrained(self.name, dtype=torch.float32)
        return whole.model.get_submodule(self.place)

    def sizes(self, width: int, smallest: int, patch: int, frames: int = 1) -> EncoderFacts:
        """Return the facts of a tower for images of any size with sides of at least `smallest` px.

        The facts have CLIP's mean and standard deviation. A tile of a video may hold `frames` frames.
        """
        return EncoderFacts(width, smallest, patch, CLIP_MEAN, CLIP_STD, frames_per_tile=frames)
