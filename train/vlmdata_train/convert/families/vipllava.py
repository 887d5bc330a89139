"""ViP-LLaVA, as `VipLlavaForConditionalGeneration` of transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from transformers import VipLlavaConfig, VipLlavaForConditionalGeneration

from vlmdata_train.convert.families.llava import Llava
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.preprocessing.anyres import Anyres


class VipLlava(Llava):
    """ViP-LLaVA: the parts of LLaVA-1.5, with several layers of the tower and a norm before the MLP."""

    title = "ViP-LLaVA"
    forms = ("vipllava",)
    names = (
        ("model.multi_modal_projector.projector_layernorm.", "abstractor.0."),
        ("model.multi_modal_projector.linear_1.", "abstractor.1."),
        ("model.multi_modal_projector.linear_2.", "abstractor.3."),
        *(entry for entry in Llava.names if "projector" not in entry[0] and "newline" not in entry[0]),
    )
    norm: ClassVar = True

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        found = list(super().misfits(model))
        yield from found
        if isinstance(model.plan.preprocessing, Anyres):
            yield "preprocessing", "pad, centre_crop or resize"
        if not getattr(model.plan.abstractor, "bias", True):
            yield "abstractor", "an mlp with biases"
        if "encoder" not in {part for part, _ in found} and self.strategy(model.encoder) != "default":
            yield "encoder", "a tower whose class token is left out"

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return VipLlavaForConditionalGeneration

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        return VipLlavaConfig(**self.common_config(model))
