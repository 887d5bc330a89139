"""Qwen2-VL, as `Qwen2VLForConditionalGeneration` of transformers. Qwen2.5-VL and Qwen3-VL are subclasses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from vlmdata_train.convert.family import Family
from vlmdata_train.convert.frames import choice_of, choice_options
from vlmdata_train.convert.published import Published, as_causal, plain_config
from vlmdata_train.convert.served import FILTERS, served_template, served_tokenizer
from vlmdata_train.convert.towers import check_normalisation
from vlmdata_train.data.templates import ChatTemplate
from vlmdata_train.encoders.qwen2_vl import Qwen2VlTower
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.vision_half import CLIP_MEAN, CLIP_STD
from vlmdata_train.videos import Spacing
from vlmdata_train.videos.temporal_patches import TemporalPatches
from vlmdata_train.writings import Writing
from vlmdata_train.writings.between import Between
from vlmdata_train.writings.plain import Plain

START, END = "<|vision_start|>", "<|vision_end|>"  # around an image, in the text


class Qwen2Vl(Family):
    """Qwen2-VL: a tower for images of any size, a merger of patches, a Qwen2 with positions on three axes."""

    title = "Qwen2-VL"
    forms = ("qwen2_vl",)
    grounding = "qwen2_vl"
    names: ClassVar[tuple[tuple[str, str], ...]] = (
        ("model.visual.merger.ln_q.", "abstractor.norm."),
        ("model.visual.merger.mlp.", "abstractor.mlp."),
        ("model.visual.", "encoder.model."),
        ("model.language_model.", "language.model."),
        ("lm_head.", "language.lm_head."),
    )
    tower: ClassVar[type | None] = Qwen2VlTower
    parts: ClassVar[Mapping[str, str]] = {
        "encoder": "qwen2_vl", "preprocessing": "smart_size", "abstractor": "patch_merger", "fusion": "tokens",
        "positions": "mrope", "language": "qwen2",
    }  # fmt: skip
    # a published model's chat template writes the tokens around an image, that of a language model does not
    writings: ClassVar[Mapping[str, Writing]] = {"plain": Plain(), "between": Between(start=START, end=END)}
    # what a subclass changes, beside the parts
    abstractor: ClassVar[Mapping[str, Any]] = {"norm": "layer"}  # parameters, without `side`
    rope: ClassVar[Mapping[str, Any]] = {}  # entries of transformers' `rope_parameters` that our language model does not need
    merged: ClassVar[str] = "hidden_size"  # entry of the tower's configuration for the width after the merger
    normalisation: ClassVar[tuple[Any, Any]] = (CLIP_MEAN, CLIP_STD)
    # how the video processor chooses frames, and what its limits are
    spacing: ClassVar[Spacing] = "starts"
    rounds: ClassVar[bool] = True  # to whole tiles
    limits: ClassVar[str] = "frame"
    cap: ClassVar[str] = "max_total"  # the parameter of the second limit, which is `max_video_tokens` there
    cap_share: ClassVar[float] = 0.9  # of these tokens
    their_config: ClassVar[Any] = Qwen2VLConfig
    their_processor: ClassVar[Any] = Qwen2VLProcessor
    their_videos: ClassVar[Any] = Qwen2VLVideoProcessor
    their_class: ClassVar[Any] = Qwen2VLForConditionalGeneration

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for another normalisation of pixels."""
        config, images, parts = start.config, start.images, self.parts
        check_normalisation(start, *self.normalisation)
        text, side = config.text_config, config.vision_config.spatial_merge_size
        rope = {name: value for name, value in text.rope_parameters.items() if name not in self.rope}
        sections = rope.pop("mrope_section")
        return ModelRecipe(
            encoder={parts["encoder"]: {"config": plain_config(config.vision_config)}},
            preprocessing={parts["preprocessing"]: {
                "min_pixels": images.size["shortest_edge"], "max_pixels": images.size["longest_edge"], "square": side,
                "resample": FILTERS[int(images.resample)],
            }},
            abstractor={parts["abstractor"]: {"side": side, **self.abstractor}},
            fusion=parts["fusion"],
            positions={parts["positions"]: {"sections": sections, **self.time_of(config)}},
            writing=self.writing_of(start.token(config.image_token_id), start.token(config.video_token_id)),
            video={"temporal_patches": self.video_of(start.videos)},
            language={"hf_causal": {
                "config": as_causal(text, parts["language"], rope_parameters=rope, tie_word_embeddings=start.ties),
                "tokenizer": start.name,
            }},
        )  # fmt: skip

    def writing_of(self, image_token: str, video_token: str) -> dict[str, Any]:
        """Return the writing of a published model."""
        return {"plain": {"image_token": image_token, "video_token": video_token}}

    def time_of(self, config: Any) -> dict[str, Any]:
        """Return the parameters of the positions for videos. By default each frame of a video is one step of time."""
        return {}

    def video_of(self, videos: Any) -> dict[str, Any]:
        """Return the parameters of the video part for a video processor. A processor that does not choose frames reads all."""
        least, most = videos.size["shortest_edge"], videos.size["longest_edge"]
        choice, factor = choice_of(videos, self.spacing), videos.patch_size * videos.merge_size
        chooses = (choice["fps"], choice["count"]) != (None, None)
        cap = int(videos.max_video_tokens * factor**2 * self.cap_share) if videos.cap_pixels_per_frame else None
        return {
            **choice, "min_frames": videos.min_frames if chooses else 1, "max_frames": videos.max_frames if chooses else None,
            "multiple": videos.temporal_patch_size if chooses and self.rounds else 1, "stack": videos.temporal_patch_size,
            "min_pixels": least, "max_pixels": most, "limits": self.limits, self.cap: cap, "square": videos.merge_size,
            "resample": FILTERS[int(videos.resample)],
        }  # fmt: skip

    def video_options(self, model: VisionLanguageModel) -> dict[str, Any]:
        """Return the options of the video processor for a model's video part, or none for another part."""
        part: Any = model.plan.video
        if not isinstance(part, TemporalPatches):
            return {}
        factor, cap = model.plan.facts.patch_size * part.square, getattr(part, self.cap)
        limits = {} if part.max_frames is None else {"min_frames": part.min_frames, "max_frames": part.max_frames}
        tokens = {} if cap is None else {"max_video_tokens": math.ceil(cap / factor**2 / self.cap_share)}
        return {
            **choice_options(part), **limits, **tokens, "cap_pixels_per_frame": cap is not None,
            "size": {"shortest_edge": part.min_pixels, "longest_edge": part.max_pixels},
            "resample": FILTERS.index(part.resample),
        }  # fmt: skip

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        yield from super().misfits(model)
        own = {name: getattr(model.plan.abstractor, name, None) for name in self.abstractor}
        if own != self.abstractor:
            yield "abstractor", f"{self.parts['abstractor']}: {dict(self.abstractor)}"
        writing = model.plan.writing
        if writing.video_token is None or replace(writing, image_token=None, video_token=None) not in self.writings.values():
            yield "writing", f"{self.described_writings()}, with a `video_token`"
        template = ChatTemplate(model.tokenizer, model.image_token)
        if isinstance(writing, Between) and template.form in ("both", "parts") and START not in template.image_text:
            yield "language", f"a chat template that writes {START} before an image, or that accepts texts only"

    def described_writings(self) -> str:
        """Return the writings that the format holds, for messages."""
        return f"plain, or between with `start: {START}` and `end: {END}`"

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return self.their_class

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        text, tokenizer = model.language.config, model.tokenizer
        rope = {**text.rope_parameters, **self.rope, "mrope_section": list(model.positions.sections)}
        ids = {
            f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")
        }  # fmt: skip
        known = {*self.their_config().text_config.to_dict(), "bos_token_id", "eos_token_id", "pad_token_id"}
        return self.their_config(
            vision_config={**model.encoder.model.config.to_dict(), self.merged: text.hidden_size},
            text_config={name: value for name, value in {**text.to_dict(), "rope_parameters": rope}.items() if name in known},
            image_token_id=model.image_token_id, video_token_id=model.video_token_id,
            tie_word_embeddings=text.tie_word_embeddings, dtype=next(model.parameters()).dtype, **ids,
        )  # fmt: skip

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor."""
        plan, config = model.plan, model.encoder.model.config
        options = {
            "size": {"shortest_edge": plan.preprocessing.min_pixels, "longest_edge": plan.preprocessing.max_pixels},
            "patch_size": config.patch_size, "merge_size": config.spatial_merge_size,
            "temporal_patch_size": config.temporal_patch_size, "image_mean": list(plan.facts.mean),
            "image_std": list(plan.facts.std), "resample": FILTERS.index(plan.preprocessing.resample),
        }  # fmt: skip
        image, video = self.media_texts(plan.writing, model.image_token)
        return self.their_processor(
            image_processor=Qwen2VLImageProcessor(**options),
            video_processor=self.their_videos(**{**options, **self.video_options(model)}),
            tokenizer=served_tokenizer(model.tokenizer, model.image_token),
            chat_template=served_template(
                model.tokenizer, model.image_token, plan.writing.video_token, image=image, video=video
            ),
        )  # fmt: skip

    def media_texts(self, writing: Any, image_token: str) -> tuple[str | None, str | None]:
        """Return what the chat template of an export writes for an image and for a video; None: the token alone.

        The processor writes the tokens around the frames of a video that have a text before them.
        """
        if not isinstance(writing, Between):
            return None, None
        image, video = (f"{writing.start}{token}{writing.end}" for token in (image_token, writing.video_token))
        return image, video if writing.frame is None else None
