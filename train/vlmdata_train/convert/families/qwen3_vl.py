"""Qwen3-VL, as `Qwen3VLForConditionalGeneration` of transformers."""

from __future__ import annotations

from typing import ClassVar

from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor, Qwen3VLVideoProcessor

from vlmdata_train.convert.families.qwen2_vl import Qwen2Vl
from vlmdata_train.encoders.qwen3_vl import HALF, Qwen3VlTower


class Qwen3Vl(Qwen2Vl):
    """Qwen3-VL: as Qwen2-VL, but features of several layers of the tower go to several layers of a Qwen3."""

    title = "Qwen3-VL"
    forms = ("qwen3_vl",)
    names = (
        ("model.visual.merger.norm.", "abstractor.last.norm."),
        ("model.visual.merger.linear_fc1.", "abstractor.last.mlp.0."),
        ("model.visual.merger.linear_fc2.", "abstractor.last.mlp.2."),
        ("model.visual.deepstack_merger_list.*.norm.", "abstractor.deeper.*.norm."),
        ("model.visual.deepstack_merger_list.*.linear_fc1.", "abstractor.deeper.*.mlp.0."),
        ("model.visual.deepstack_merger_list.*.linear_fc2.", "abstractor.deeper.*.mlp.2."),
        *Qwen2Vl.names[2:],
    )
    tower = Qwen3VlTower
    parts: ClassVar = {
        **Qwen2Vl.parts, "encoder": "qwen3_vl", "abstractor": "deep_merger", "fusion": "deep_tokens",
        "positions": "interleaved_mrope", "writing": "between", "language": "qwen3",
    }  # fmt: skip
    abstractor: ClassVar = {}
    rope: ClassVar = {"mrope_interleaved": True}
    normalisation: ClassVar = (HALF, HALF)
    writing: ClassVar = {"start": "<|vision_start|>", "end": "<|vision_end|>", "frame": "<{seconds} seconds>"}
    spacing: ClassVar = "ends"
    rounds: ClassVar = False
    limits: ClassVar = "video"
    cap: ClassVar = "max_frame"
    cap_share: ClassVar = 1.0
    their_config: ClassVar = Qwen3VLConfig
    their_processor: ClassVar = Qwen3VLProcessor
    their_videos: ClassVar = Qwen3VLVideoProcessor
    their_class: ClassVar = Qwen3VLForConditionalGeneration
