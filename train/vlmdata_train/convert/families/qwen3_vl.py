"""Qwen3-VL, as `Qwen3VLForConditionalGeneration` of transformers."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor, Qwen3VLVideoProcessor

from vlmdata_train.convert.families.qwen2_vl import END, START, Qwen2Vl
from vlmdata_train.encoders.qwen3_vl import HALF, Qwen3VlTower
from vlmdata_train.writings.between import Between

FRAME = "<{seconds} seconds>"  # the text before each pair of frames


class Qwen3Vl(Qwen2Vl):
    """Qwen3-VL: as Qwen2-VL, but features of several layers of the tower go to several layers of a Qwen3."""

    title = "Qwen3-VL"
    forms = ("qwen3_vl",)
    grounding = "qwen3_vl"
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
        "positions": "interleaved_mrope", "language": "qwen3",
    }  # fmt: skip
    writings: ClassVar = {"between": Between(start=START, end=END, frame=FRAME)}
    abstractor: ClassVar = {}
    merged: ClassVar = "out_hidden_size"
    rope: ClassVar = {"mrope_interleaved": True}
    normalisation: ClassVar = (HALF, HALF)
    spacing: ClassVar = "ends"
    rounds: ClassVar = False
    limits: ClassVar = "video"
    cap: ClassVar = "max_frame"
    cap_share: ClassVar = 1.0
    their_config: ClassVar = Qwen3VLConfig
    their_processor: ClassVar = Qwen3VLProcessor
    their_videos: ClassVar = Qwen3VLVideoProcessor
    their_class: ClassVar = Qwen3VLForConditionalGeneration

    def writing_of(self, image_token: str, video_token: str) -> dict[str, Any]:
        """Return the writing of a published model."""
        tokens = {"image_token": image_token, "video_token": video_token}
        return {"between": {**tokens, "start": START, "end": END, "frame": FRAME}}

    def described_writings(self) -> str:
        """Return the writings that the format holds, for messages."""
        return f"between with `start: {START}`, `end: {END}`, `frame: {FRAME}`"
