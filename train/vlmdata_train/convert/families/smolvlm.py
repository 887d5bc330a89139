"""SmolVLM, as `SmolVLMForConditionalGeneration` of transformers. Its processor needs the package num2words."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from typing import Any, ClassVar

from transformers import (
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.smolvlm.processing_smolvlm import (
    DEFAULT_MEDIA_OUTTRO,
    DEFAULT_VIDEO_INTRO,
    FRAME_TIMESTAMP_MESSAGE,
)

from vlmdata_train.convert.families.idefics3 import Idefics3
from vlmdata_train.convert.published import Published
from vlmdata_train.convert.served import FILTERS, served_tokenizer
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.videos.frames import Frames
from vlmdata_train.writings.tile_grid import TileGrid

TEXTS = {  # around a video and before its frames
    "video_start": DEFAULT_VIDEO_INTRO.format(frame_count="{frames_in_words}", video_duration="{duration}"),
    "frame": FRAME_TIMESTAMP_MESSAGE.format(timestamp="{clock}"), "video_end": DEFAULT_MEDIA_OUTTRO,
}  # fmt: skip


class SmolVlm(Idefics3):
    """SmolVLM: the parts of Idefics3, with larger squares."""

    title = "SmolVLM"
    forms = ("smolvlm",)
    factors: ClassVar = (3, 4)  # the published models have these
    their_config: ClassVar = SmolVLMConfig
    their_class: ClassVar = SmolVLMForConditionalGeneration

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for another preparation of images."""
        recipe, videos = super().recipe(start), start.videos
        ((name, writing),) = recipe.writing.items()
        side = start.config.vision_config.image_size  # a frame has one tile
        tiles = {"longest": min(videos.size["longest_edge"], side), "resample": FILTERS[int(videos.resample)]}
        frames = {"fps": videos.fps, "max_frames": videos.num_frames, "spacing": "ends_down"}
        return replace(
            recipe, writing={name: {**writing, **TEXTS}}, video={"frames": {**frames, "preprocessing": {"square_tiles": tiles}}}
        )

    def plain_writing(self, writing: TileGrid) -> TileGrid:
        """Return a writing with its defaults where the format has a choice: its tokens, and texts for videos or none."""
        none: dict[str, Any] = dict.fromkeys(TEXTS, "")
        writing = super().plain_writing(writing)
        return replace(writing, **none) if {name: getattr(writing, name) for name in TEXTS} == TEXTS else writing

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor. Raises ValueError without num2words."""
        if find_spec("num2words") is None:
            raise ValueError("SmolVLM's processor needs the package num2words: pip install num2words")
        options, part = self.image_options(model), model.plan.video
        videos = {**options, "size": {"longest_edge": model.plan.facts.image_size}}
        if isinstance(part, Frames):
            chooses = part.fps is not None and part.max_frames is not None  # its sampler needs both
            videos |= {"fps": part.fps, "num_frames": part.max_frames, "do_sample_frames": chooses}
        return SmolVLMProcessor(
            image_processor=SmolVLMImageProcessor(**options), video_processor=SmolVLMVideoProcessor(**videos),
            tokenizer=served_tokenizer(model.tokenizer, model.image_token), **self.text_options(model),
        )  # fmt: skip
