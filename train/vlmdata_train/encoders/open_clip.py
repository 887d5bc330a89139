"""Image towers of open_clip: the tower of a published model, or a new tower with random weights.

P images, N patches, C width.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from timm.models.nfnet import NormFreeNet
from torch import Tensor, nn

from vlmdata.catalog import suggest
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.placeholders import in_full
from vlmdata_train.model.unused_weights import set_unused_aside


class OpenClipTower(nn.Module):
    """Maps normalised pixels (P, 3, H, W) to features (P, N, C). Several layers are concatenated along C."""

    visual: Any  # a tower of open_clip or timm with `forward_intermediates`

    def __init__(self, visual: nn.Module, layers: Sequence[int], tokens: str, norm: bool) -> None:
        super().__init__()
        self.visual, self.tokens, self.norm = visual, tokens, norm
        self.indices = [layer if layer < 0 else layer - 1 for layer in layers]  # open_clip counts blocks from 0

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the features of the chosen layers. Later blocks are not run."""
        options: dict[str, Any] = {"normalize_intermediates": True} if self.norm else {}
        if self.tokens == "all":
            options["output_extra_tokens"] = True
        order = sorted(set(self.indices))  # open_clip returns layers by depth
        found = self.visual.forward_intermediates(
            pixels, indices=self.indices, intermediates_only=True, stop_early=True, output_fmt="NCHW", **options
        )
        maps = found["image_intermediates"]
        features = {index: each.flatten(2).transpose(1, 2) for index, each in zip(order, maps, strict=True)}
        if self.tokens == "all":
            for index, prefix in zip(order, found["image_intermediates_prefix"], strict=True):
                features[index] = torch.cat([prefix, features[index]], 1)
        return torch.cat([features[index] for index in self.indices], -1)  # (P, N, C)


@dataclass(frozen=True)
class OpenClip:
    """A tower of open_clip: either the one that `model` names, or a new one as `config` says.

    `model` is a name of open_clip: `ViT-L-14-336`, `hf-hub:...` or `local-dir:...`.
    """

    model: str | None = None
    pretrained: str | None = None  # a tag of open_clip, such as `openai`, or a file; None: random weights
    # fields of open_clip's CLIPVisionCfg: width, layers, patch_size, image_size; or a tower of timm, such as NFNet-F6 with its
    # published weights: {timm_model_name: dm_nfnet_f6, timm_model_pretrained: true, image_size: 448}
    config: dict[str, Any] | None = None
    image_size: int | None = None  # if it is not the model's size, position embeddings are interpolated
    layer: int | tuple[int, ...] = -2  # -1 is the last block, and k > 0 is the k-th block; LLaVA uses -2
    tokens: str = "patches"  # `patches`, or `all`, which adds the class token before the patches
    norm: bool = False  # apply the norm after the tower's last block to the features

    def __post_init__(self) -> None:
        if (self.model is None) == (self.config is None):
            raise ValueError("set exactly one of model (a name of open_clip) and config (a tower with random weights)")
        if self.tokens not in ("patches", "all"):
            raise ValueError(f"tokens must be `patches` or `all`, not '{self.tokens}'")
        known = [f.name for f in dataclasses.fields(open_clip.CLIPVisionCfg)]
        if unknown := next((name for name in self.config or {} if name not in known), None):
            raise ValueError(f"open_clip's vision configuration has no '{unknown}'.{suggest(unknown, known)}")
        if self.pretrained and self.config:
            raise ValueError("`pretrained` needs `model`, and cannot be used with `config`")
        if not (all(layer > 0 for layer in self.layers) or all(layer < 0 for layer in self.layers)):
            raise ValueError("the layers must be all positive (counted from the first) or all negative (counted from the last)")
        schemes = ("hf-hub:", "local-dir:")
        if self.model and not self.model.startswith(schemes) and self.model not in open_clip.list_models():
            raise ValueError(f"open_clip has no model '{self.model}'.{suggest(self.model, open_clip.list_models())}")

    @property
    def layers(self) -> tuple[int, ...]:
        """The chosen layers, as a tuple even if there is only one."""
        return (self.layer,) if isinstance(self.layer, int) else tuple(self.layer)

    def facts(self) -> EncoderFacts:
        """Return the tower's facts from a build on the meta device."""
        visual = self.bare()
        self._check_layers(visual)
        size = visual.image_size
        mean, std = self._normalisation(visual)
        if isinstance(visual, open_clip.model.VisionTransformer):
            width, patch = visual.conv1.out_channels, visual.patch_size[0]
        elif isinstance(visual, open_clip.timm_model.TimmModel):
            width, patch = visual.trunk.num_features, visual.trunk.feature_info[-1]["reduction"]
        else:  # CLIP's own ResNet
            width, patch = visual.layer4[-1].conv3.out_channels, 32
        return EncoderFacts(
            width=width * len(self.layers), image_size=size[0] if isinstance(size, tuple) else size, patch_size=patch,
            mean=mean, std=std, extra=1 if self.tokens == "all" else 0,
            rounds_up=isinstance(getattr(visual, "trunk", None), NormFreeNet),  # its convolutions pad the last patch
        )  # fmt: skip

    def build(self) -> nn.Module:
        """Return the tower with its weights."""
        is_plain = self.config is not None and "timm_model_name" not in self.config
        visual = self._visual(weights=True) if is_plain else in_full(partial(self._visual, weights=True))
        tower = OpenClipTower(visual, self.layers, self.tokens, self.norm)
        size = self.facts().image_size
        try:
            set_unused_aside(tower, size, size)
        except AssertionError as error:  # timm and open_clip raise this for a layer that the tower does not have
            raise ValueError(f"open_clip: layer {self.layer}: {error}") from None
        return tower

    def _check_layers(self, visual: Any) -> None:
        """Raise ValueError if layers of different grids are chosen, or the class token of a tower of convolutions."""
        stages = {info["reduction"] for info in visual.trunk.feature_info} if hasattr(visual, "trunk") else set()
        if not (len(stages) > 1 or hasattr(visual, "layer4")):
            return
        if self.layers != (-1,) or self.tokens == "all":
            raise ValueError(
                "open_clip: in a tower of convolutions each layer has another grid and there is no class token. Set `layer: -1`"
                " and omit `tokens`"
            )
        if hasattr(visual, "layer4") and visual.image_size % 32:
            raise ValueError("open_clip: the image_size of CLIP's ResNet must be a multiple of 32")

    def bare(self) -> Any:
        """Return open_clip's tower without weights, on the meta device."""
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)  # open_clip would warn that the weights are random
        try:
            with torch.device("meta"):
                return self._visual(weights=False)
        finally:
            logging.disable(before)

    def _visual(self, *, weights: bool) -> Any:
        if self.config is not None:
            vision = {**self.config, **({"image_size": self.image_size} if self.image_size else {})}
            vision["timm_model_pretrained"] = weights and bool(self.config.get("timm_model_pretrained"))
            text = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}  # small, because it is not used
            visual = open_clip.CLIP(embed_dim=8, vision_cfg=vision, text_cfg=text).visual
            if hasattr(visual, "trunk"):  # open_clip does this only for models that it knows by name
                visual.set_input_size(visual.image_size)
            return visual
        assert self.model is not None
        model = open_clip.create_model(
            self.model, pretrained=self.pretrained if weights else None, load_weights=weights,
            force_image_size=self.image_size, require_pretrained=bool(weights and self.pretrained),
            force_quick_gelu=self._published().get("quick_gelu", False), device="cpu" if weights else "meta",
        )  # fmt: skip
        return model.visual

    def _published(self) -> dict[str, Any]:
        """Return open_clip's configuration of the published weights, such as `mean`, `std` and `quick_gelu`."""
        if self.model is None or ":" in self.model or self.pretrained is None:
            return {}
        return open_clip.get_pretrained_cfg(self.model, self.pretrained) or {}  # a file of weights has no configuration

    def _normalisation(self, visual: Any) -> tuple[Any, Any]:
        known = self._published()
        if self.config is not None and self.config.get("timm_model_pretrained"):
            known = visual.trunk.default_cfg  # timm's weights were trained with timm's values
        elif self.model is not None and ":" in self.model:
            known = visual.preprocess_cfg  # the folder or repository holds a configuration file
        elif self.model is not None and not known:  # random weights or a file: use the values of the first published weights
            tag = next(iter(open_clip.list_pretrained_tags_by_model(self.model)), None)
            known = open_clip.get_pretrained_cfg(self.model, tag) if tag else {}
        return tuple(known.get("mean", OPENAI_DATASET_MEAN)), tuple(known.get("std", OPENAI_DATASET_STD))
