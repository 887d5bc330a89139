"""LLaVA-1.5, LLaVA-NeXT and LLaVA-OneVision in transformers' form (`LlavaForConditionalGeneration` and similar classes)."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessor,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
)

from vlmdata_train.abstractors.mlp import Mlp
from vlmdata_train.convert.clip_weights import clip_config, clip_weights
from vlmdata_train.convert.family import Family
from vlmdata_train.convert.frames import frame_options, frames_of
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.convert.served import FILTERS, pixel_options, served_template, served_tokenizer, square
from vlmdata_train.encoders.hf_vision import HfVisionTower
from vlmdata_train.encoders.open_clip import OpenClipTower
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.preprocessing.anyres import Anyres
from vlmdata_train.preprocessing.centre_crop import CentreCrop
from vlmdata_train.preprocessing.pad import Pad
from vlmdata_train.preprocessing.resize import Resize
from vlmdata_train.writings.plain import Plain


class Llava(Family):
    """A tower, an MLP, and image tokens in the text of any causal language model."""

    title = "LLaVA"
    forms: ClassVar[tuple[str, ...]] = ("llava", "llava_next", "llava_onevision")
    names: ClassVar[tuple[tuple[str, str], ...]] = (
        ("model.vision_tower.", "encoder.model."),
        ("model.multi_modal_projector.linear_1.", "abstractor.0."),
        ("model.multi_modal_projector.linear_2.", "abstractor.2."),
        ("model.image_newline", "arrangement.newline"),
        ("model.language_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    parts: ClassVar = {"fusion": "tokens", "positions": "rope", "writing": "plain"}
    norm: ClassVar[bool] = False  # before the MLP

    def takes(self, facts: Mapping[str, Any]) -> bool:
        """Return whether a model has this format. Models in LLaVA's original format have the same type, but other keys."""
        tower = facts.get("vision_config")
        return super().takes(facts) and "mm_vision_tower" not in facts and (tower or {}).get("model_type") != "pixtral"

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for settings that our parts do not have."""
        config, images = start.config, start.images
        is_vip = self.norm  # its configuration has fewer fields
        strategy = "default" if is_vip else config.vision_feature_select_strategy
        has_class = config.vision_config.model_type != "siglip_vision_model"
        if strategy == "default" and not has_class:
            raise ValueError(f"encoder: {start.name} leaves out the first patch, because its SigLIP has no class token")
        if is_vip and config.projector_layernorm_eps != 1e-5:
            raise ValueError(f"abstractor: the epsilon of the norm must be 1e-05, not {config.projector_layernorm_eps}")
        vision = {
            "config": plain_config(config.vision_config), "layer": config.vision_feature_layer,
            "tokens": "all" if strategy == "full" and has_class else "patches", "mean": images.image_mean,
            "std": images.image_std,
        }  # fmt: skip
        is_onevision = config.model_type == "llava_onevision"
        videos = {"video_token": start.token(config.video_token_id)} if is_onevision else {}
        return ModelRecipe(
            encoder={"hf_vision": vision},
            preprocessing=_preprocessing(start),
            abstractor={"mlp": {
                "activation": config.projector_hidden_act, "bias": is_vip or config.multimodal_projector_bias,
                "norm": self.norm,
            }},
            writing={"plain": {"image_token": start.token(config.image_token_id), **videos}},
            video={"pooled_frames": frames_of(start.videos, "starts")} if is_onevision else None,
            language={"hf_causal": {
                "config": plain_config(config.text_config, tie_word_embeddings=start.ties), "tokenizer": start.name,
            }},
        )  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        plan, encoder = model.plan, model.encoder
        if not _is_plain_tower(encoder):
            yield "encoder", "an hf_vision or plain open_clip tower at its own image size, without norm and register tokens"
        part: Any = plan.preprocessing
        is_one_tile = isinstance(part, Pad | CentreCrop | Resize)
        several = "tiles" if _most_tiles(model) is None else "pad"
        if not is_one_tile and not (isinstance(part, Anyres) and part.tiles and part.several == several):
            yield "preprocessing", "pad, centre_crop, resize, anyres, or anyres with max_tiles and `several: pad`"
        mlp = plan.abstractor
        if type(mlp) is not Mlp or mlp.layers != 2 or mlp.norm is not self.norm or mlp.norm_after or mlp.mlp_width:
            yield "abstractor", f"an mlp of 2 layers {'after a' if self.norm else 'without'} norm, and no mlp_width"
        if type(plan.writing) is Plain and (plan.writing.bos != "first" or plan.writing.placeholder is not None):
            yield "writing", "plain, with BOS first and without a placeholder"
        if _most_tiles(model) is not None and plan.writing.video_token is None:
            yield "writing", "plain with a `video_token` beside anyres with max_tiles"
        yield from super().misfits(model)

    def our_weights(self, model: VisionLanguageModel) -> dict[str, Tensor]:
        """Return our weights, with those of open_clip's tower under the names of CLIP in transformers."""
        if not isinstance(model.encoder, OpenClipTower):
            return super().our_weights(model)
        rest = {name: value for name, value in model.state_dict().items() if not name.startswith("encoder.")}
        return rest | {f"encoder.model.{name}": value for name, value in clip_weights(model.encoder.visual).items()}

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        if _most_tiles(model) is not None:
            return LlavaOnevisionForConditionalGeneration
        return LlavaNextForConditionalGeneration if _is_tiled(model) else LlavaForConditionalGeneration

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        options = self.common_config(model)
        if (most := _most_tiles(model)) is not None:
            del options["image_seq_length"]
            options |= {"vision_aspect_ratio": f"anyres_max_{most}", "video_token_index": model.video_token_id}
        if _is_tiled(model):
            options["image_grid_pinpoints"] = _pinpoints(model)
        kind: Any = LlavaConfig if not _is_tiled(model) else LlavaNextConfig if most is None else LlavaOnevisionConfig
        return kind(
            vision_feature_select_strategy=self.strategy(model.encoder),
            multimodal_projector_bias=model.plan.abstractor.bias, **options,
        )  # fmt: skip

    def common_config(self, model: VisionLanguageModel) -> dict[str, Any]:
        """Return the entries of the configuration that LLaVA and ViP-LLaVA have."""
        encoder, plan = model.encoder, model.plan
        is_clip = isinstance(encoder, OpenClipTower)
        vision = clip_config(encoder.visual) if is_clip else copy.deepcopy(encoder.model.config)
        side, count = plan.facts.image_size, vision.num_hidden_layers
        if is_clip:  # the tower's `indices` count blocks from 0
            layers = [index if index < 0 else index - count for index in encoder.indices]
        else:
            layers = [layer - count - 1 for layer in encoder.layers]
        text = self.text_config(model)
        return {
            "vision_config": vision, "text_config": text, "image_token_index": model.image_token_id,
            "image_seq_length": plan.grid_of(side, side).tokens,
            "vision_feature_layer": layers[0] if len(layers) == 1 else layers,
            "projector_hidden_act": plan.abstractor.activation, "tie_word_embeddings": text.tie_word_embeddings,
            "dtype": next(model.parameters()).dtype,
        }  # fmt: skip

    def strategy(self, encoder: Any) -> str:
        """Return which tokens of the tower the configuration selects: `default` leaves out the class token."""
        drops = encoder.tokens == "patches" if isinstance(encoder, OpenClipTower) else encoder.extra == 1
        return "default" if drops else "full"

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor."""
        plan, side = model.plan, model.plan.facts.image_size
        strategy = self.strategy(model.encoder)
        # The processor counts one token fewer if the class token is dropped, so count the class token here.
        more = int(strategy == "default" or plan.facts.extra > 0)
        options: dict[str, Any] = {
            "image_processor": _image_processor(model), "vision_feature_select_strategy": strategy,
            "tokenizer": served_tokenizer(model.tokenizer, model.image_token), "image_token": model.image_token,
            "chat_template": served_template(model.tokenizer, model.image_token, plan.writing.video_token),
        }  # fmt: skip
        if (most := _most_tiles(model)) is not None:
            videos = LlavaOnevisionVideoProcessor(size=square(side), **{**pixel_options(plan), **frame_options(plan)})
            return LlavaOnevisionProcessor(
                **options, video_processor=videos, num_image_tokens=plan.grid_of(side, side).tokens + more,
                vision_aspect_ratio=f"anyres_max_{most}", video_token=plan.writing.video_token,
            )  # fmt: skip
        return (LlavaNextProcessor if _is_tiled(model) else LlavaProcessor)(
            **options, patch_size=plan.facts.patch_size, num_additional_image_tokens=more
        )


def _is_tiled(model: VisionLanguageModel) -> bool:
    return isinstance(model.plan.preprocessing, Anyres)


def _most_tiles(model: VisionLanguageModel) -> int | None:
    """Return the most tiles whose tokens LLaVA-OneVision keeps, or None for another format."""
    return getattr(model.plan.preprocessing, "max_tiles", None)


def _pinpoints(model: VisionLanguageModel) -> list[list[int]]:
    side = model.plan.facts.image_size
    return [[rows * side, columns * side] for rows, columns in model.plan.preprocessing.tiles]


def _image_processor(model: VisionLanguageModel) -> Any:
    """Return the image processor for a model's preprocessing."""
    plan, side = model.plan, model.plan.facts.image_size
    common = {"crop_size": square(side), "size": {"shortest_edge": side}, **pixel_options(plan)}
    if _most_tiles(model) is not None:
        pinpoints = _pinpoints(model)
        return LlavaOnevisionImageProcessor(size=square(side), image_grid_pinpoints=pinpoints, **pixel_options(plan))
    if isinstance(plan.preprocessing, Anyres):
        return LlavaNextImageProcessor(**common, image_grid_pinpoints=_pinpoints(model))
    if isinstance(plan.preprocessing, Pad):
        return LlavaImageProcessor(**common, do_pad=True)
    if isinstance(plan.preprocessing, Resize):
        return CLIPImageProcessor(**{**common, "size": square(side)}, do_center_crop=False)
    return CLIPImageProcessor(**common)


def _is_plain_tower(encoder: Any) -> bool:
    """Return whether LLaVA's format can hold a tower."""
    if isinstance(encoder, OpenClipTower):
        try:
            clip_config(encoder.visual)
        except ValueError:
            return False
        return not encoder.norm
    return isinstance(encoder, HfVisionTower) and encoder.extra <= 1 and not encoder.interpolate and not encoder.norm


def _preprocessing(start: Published) -> Any:
    """Return the recipe's preprocessing for a published image processor. Raises ValueError for other sizes or tiles."""
    config, images, side = start.config, start.images, start.config.vision_config.image_size
    resample, crops = FILTERS[int(images.resample)], bool(getattr(images, "do_center_crop", False))
    size = {name: value for name, value in dict(images.size).items() if value is not None}
    crop = {name: value for name, value in dict(images.crop_size or {}).items() if value is not None} if crops else square(side)
    if size not in ({"shortest_edge": side}, square(side)) or crop != square(side):
        raise ValueError(
            f"preprocessing: {start.name} resizes images to {size} and crops to {crop}, but the tower has {side} px"
        )
    if config.model_type in ("llava", "vipllava"):
        if getattr(images, "do_pad", False):
            return {"pad": {"resample": resample}}
        if size == square(side):
            return {"resize": {"resample": resample}}
        if not crops:
            raise ValueError(f"preprocessing: {start.name} resizes the short side of images, but crops no square")
        return {"centre_crop": {"resample": resample}}
    return {"anyres": {"tiles": _tiles(start, side), "resample": resample, **_limits(config)}}


def _tiles(start: Published, side: int) -> tuple[tuple[int, int], ...]:
    """Return the grids of tiles as (rows, columns)."""
    sizes, others = start.config.image_grid_pinpoints, start.images.image_grid_pinpoints
    if [list(size) for size in sizes] != [list(size) for size in others]:
        raise ValueError(f"preprocessing: the image_grid_pinpoints of {start.name} differ from those of its image processor")
    if any(length % side for size in sizes for length in size):
        raise ValueError(f"preprocessing: the image_grid_pinpoints of {start.name} must be multiples of {side}")
    return tuple((rows // side, columns // side) for rows, columns in sizes)


def _limits(config: Any) -> dict[str, Any]:
    """Return the parameters of `anyres` that LLaVA-OneVision has."""
    if config.model_type != "llava_onevision":
        return {}
    limit = re.fullmatch(r"anyres_max_(\d+)", config.vision_aspect_ratio)
    if limit is None:
        raise ValueError(f"preprocessing: vision_aspect_ratio must be anyres_max_N, not {config.vision_aspect_ratio}")
    return {"max_tiles": int(limit[1]), "several": "pad"}
