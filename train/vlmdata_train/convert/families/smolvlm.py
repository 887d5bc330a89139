"""SmolVLM, as `SmolVLMForConditionalGeneration` of transformers. Its processor needs the package num2words."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import (
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from vlmdata_train.convert.families.idefics3 import Idefics3
from vlmdata_train.convert.served import served_tokenizer
from vlmdata_train.model.model import VisionLanguageModel


class SmolVlm(Idefics3):
    """SmolVLM: the parts of Idefics3, with larger squares."""

    title = "SmolVLM"
    forms = ("smolvlm",)
    factors: ClassVar = (3, 4)  # the published models have these
    their_config: ClassVar = SmolVLMConfig
    their_class: ClassVar = SmolVLMForConditionalGeneration

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor. Raises ImportError without num2words."""
        options, side = self.image_options(model), model.plan.facts.image_size
        videos = {**options, "size": {"longest_edge": side}}
        return SmolVLMProcessor(
            image_processor=SmolVLMImageProcessor(**options), video_processor=SmolVLMVideoProcessor(**videos),
            tokenizer=served_tokenizer(model.tokenizer, model.image_token), **self.text_options(model),
        )  # fmt: skip
