"""Hugging Face's image towers with patch embeddings and identical blocks: CLIP, SigLIP, DINOv2, DINOv3, ViT and InternViT.

P images, N patches, C width.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    PreTrainedConfig,
)

from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.hf_configs import config_of, published_config
from vlmdata_train.model.placeholders import are_on
from vlmdata_train.model.repeated_blocks import blocks_of
from vlmdata_train.model.unused_weights import set_unused_aside


class HfVisionTower(nn.Module):
    """Maps normalised pixels (P, 3, H, W) to features (P, N, C). Several layers are concatenated along C.

    It calls the blocks one by one up to the last chosen layer, so no later layer is computed.
    """

    def __init__(self, model: nn.Module, layers: Sequence[int], extra: int, norm: bool, interpolate: bool) -> None:
        super().__init__()
        self.model: Any = model
        self.extra, self.norm, self.interpolate = extra, norm, interpolate
        count = len(blocks_of(model))
        self.layers = [layer if layer > 0 else count + layer + 1 for layer in layers]  # number of blocks to run
        if not all(1 <= layer <= count for layer in self.layers):
            raise ValueError(f"each layer must be 1 to {count} or -1 to -{count} in this tower, but `layer` is {list(layers)}")

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed the pixels, run the blocks, and return the chosen layers without their first `extra` tokens."""
        hidden = embed(self.model, pixels, self.interpolate)
        options: dict[str, Any] = {}
        if hasattr(self.model, "rope_embeddings"):
            options["position_embeddings"] = self.model.rope_embeddings(pixels)
        blocks = blocks_of(self.model)
        if "attention_mask" in inspect.signature(blocks[0].forward).parameters:
            options["attention_mask"] = None
        found = {}
        for number, block in enumerate(blocks[: max(self.layers)], 1):
            hidden = block(hidden, **options)
            if number in self.layers:
                found[number] = last_norm(self.model)(hidden) if self.norm else hidden
        return torch.cat([found[layer][:, self.extra :] for layer in self.layers], -1)


def embed(model: Any, pixels: Tensor, interpolate: bool) -> Tensor:
    """Return the input of the first block: (P, tokens, C)."""
    options = {}
    if interpolate and "interpolate_pos_encoding" in inspect.signature(model.embeddings.forward).parameters:
        options["interpolate_pos_encoding"] = True
    hidden = model.embeddings(pixels, **options)
    return model.pre_layrnorm(hidden) if hasattr(model, "pre_layrnorm") else hidden  # not a typo: the name in CLIP


def last_norm(model: Any) -> nn.Module:
    """Return the norm after the last block. Raise ValueError if the model has none."""
    for name in ("post_layernorm", "layernorm", "norm"):
        if hasattr(model, name):
            return getattr(model, name)
    raise ValueError(f"{type(model).__name__} has no norm after its last block. Omit `norm`")


@dataclass(frozen=True)
class HfVision:
    """A tower with the published weights of `name`, or with the configuration `config` and random weights. Set exactly one.

    If `name` is a whole model, such as a CLIP, a SigLIP or an InternVL, only its image tower is used.
    """

    name: str | None = None  # a hub name or a folder
    config: dict[str, Any] | None = None  # model_type and other fields of the model's configuration
    image_size: int | None = None  # if set, position embeddings are interpolated to this size
    layer: int | tuple[int, ...] = -2  # -1 is the last block, and k > 0 is the k-th block; LLaVA uses -2
    tokens: str = "patches"  # `patches`, or `all`, which adds class and register tokens before the patches
    norm: bool = False  # apply the norm after the tower's last block to the features
    mean: tuple[float, float, float] | None = None  # one per channel; None: from the published processor, or 0.5 with `config`
    std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if (self.name is None) == (self.config is None):
            raise ValueError("set exactly one of name (published weights) and config (random weights)")
        if self.config is not None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("config needs a model_type, such as clip_vision_model")
        if self.tokens not in ("patches", "all"):
            raise ValueError(f"tokens must be `patches` or `all`, not '{self.tokens}'")

    @property
    def layers(self) -> tuple[int, ...]:
        """The chosen layers, as a tuple even if there is only one."""
        return (self.layer,) if isinstance(self.layer, int) else tuple(self.layer)

    def load_config(self) -> PreTrainedConfig:
        """Return the configuration of the image tower. A model of two towers has one configuration for each tower.

        Raises ValueError for a model that reads no images, or that has no fixed image size.
        """
        config = published_config(self.name) if self.name is not None else config_of(self.config or {})
        if self.name is not None:
            config = getattr(config, "vision_config", config)
        for size in ("image_size", "patch_size"):
            if getattr(config, size, None) is None:
                kind = f"a {config.model_type}" + (f", which {self.name} has," if self.name else "")
                raise ValueError(f"hf_vision: {kind} has no {size}. Use the tower of a CLIP, a SigLIP or another ViT")
        return config

    def facts(self) -> EncoderFacts:
        """Return the tower's facts from its configuration and its embeddings on the meta device."""
        config = self.load_config()
        size, patch = self.image_size or _one(config.image_size), _one(config.patch_size)
        mean, std = self._normalisation()
        return EncoderFacts(
            width=config.hidden_size * len(self.layers), image_size=size, patch_size=patch, mean=mean, std=std,
            extra=self._extra(config, size, patch) if self.tokens == "all" else 0,
        )  # fmt: skip

    def build(self) -> nn.Module:
        """Return the tower with its weights."""
        config = self.load_config()
        model, missing = (AutoModel.from_config(config), set()) if self.name is None or are_on() else self._load(config)
        size = self.image_size or _one(config.image_size)
        extra = self._extra(config, size, _one(config.patch_size)) if self.tokens == "patches" else 0
        tower = HfVisionTower(model, self.layers, extra, self.norm, interpolate=self.image_size is not None)
        set_unused_aside(tower, size, size)
        if lost := sorted(missing & {name for name, _ in model.named_parameters()}):
            raise ValueError(f"hf_vision: {self.name} has no weights of an image tower with the name {lost[0]}")
        return tower

    def _load(self, config: PreTrainedConfig) -> tuple[Any, set[str]]:
        """Return the published tower, and the names of its weights that are not among the published weights."""
        name = str(self.name)
        whole = published_config(name)
        options = {"dtype": torch.float32, "output_loading_info": True}
        if type(whole) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            tower, info = AutoModel.from_pretrained(name, config=config, **options)
            return tower, set(info["missing_keys"])
        load: Any = AutoModelForImageTextToText.from_pretrained  # AutoModel would not find the tower in these models
        model, info = load(name, config=whole, **options)
        kind = _class_of(config)
        place, tower = next((place, each) for place, each in model.named_modules() if type(each) is kind)
        return tower, {key.removeprefix(f"{place}.") for key in info["missing_keys"]}

    def _extra(self, config: PreTrainedConfig, size: int, patch: int) -> int:
        """Return the number of tokens before the patches, which is the number of all tokens minus the number of patches."""
        with torch.device("meta"):
            hidden = embed(AutoModel.from_config(config), torch.empty(1, 3, size, size), self.image_size is not None)
        return hidden.shape[1] - (size // patch) ** 2

    def _normalisation(self) -> tuple[Any, Any]:
        if self.mean is not None and self.std is not None:
            return self.mean, self.std
        if self.name is None:
            return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
        processor = AutoImageProcessor.from_pretrained(self.name)
        return tuple(processor.image_mean), tuple(processor.image_std)


def _class_of(config: PreTrainedConfig) -> type:
    """Return the class of the tower with this configuration."""
    with torch.device("meta"):
        return type(AutoModel.from_config(config))


def _one(size: Any) -> int:
    """Return the side that a configuration gives as a number or as (height, width). Raise ValueError if these two differ."""
    if isinstance(size, int):
        return size
    height, width = size
    if height != width:
        raise ValueError(f"the tower must have square images and patches, not {height} x {width}")
    return int(height)
