"""Qwen2.5-VL, as `Qwen2_5_VLForConditionalGeneration` of transformers."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from vlmdata_train.convert.families.qwen2_vl import Qwen2Vl
from vlmdata_train.encoders.qwen2_5_vl import Qwen25VlTower


class Qwen25Vl(Qwen2Vl):
    """Qwen2.5-VL: the parts of Qwen2-VL, with windows in the tower and an RMS norm in the merger."""

    title = "Qwen2.5-VL"
    forms = ("qwen2_5_vl",)
    grounding = "qwen2_5_vl"
    tower = Qwen25VlTower
    parts: ClassVar = {**Qwen2Vl.parts, "encoder": "qwen2_5_vl"}
    abstractor: ClassVar = {"norm": "rms"}
    merged: ClassVar = "out_hidden_size"
    their_config: ClassVar = Qwen2_5_VLConfig
    their_processor: ClassVar = Qwen2_5_VLProcessor
    their_class: ClassVar = Qwen2_5_VLForConditionalGeneration

    def time_of(self, config: Any) -> dict[str, Any]:
        """Return the parameters of the positions for videos, whose time is in seconds."""
        return {"tokens_per_second": config.vision_config.tokens_per_second}
