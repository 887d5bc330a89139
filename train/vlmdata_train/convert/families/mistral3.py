"""Mistral 3 (Small 3.1 and later), as `Mistral3ForConditionalGeneration` of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from transformers import Mistral3Config, Mistral3ForConditionalGeneration

from vlmdata_train.convert.families.pixtral import Pixtral
from vlmdata_train.encoders.mistral3 import SquareTower
from vlmdata_train.model.model import VisionLanguageModel


class Mistral3(Pixtral):
    """Mistral 3: Pixtral with squares of patches that a linear layer merges."""

    title = "Mistral 3"
    forms = ("mistral3",)
    names = (
        ("model.multi_modal_projector.norm.", "abstractor.norm."),
        ("model.multi_modal_projector.patch_merger.merging_layer.", "abstractor.merge."),
        ("model.multi_modal_projector.linear_1.", "abstractor.mlp.0."),
        ("model.multi_modal_projector.linear_2.", "abstractor.mlp.2."),
        *(entry for entry in Pixtral.names if "projector" not in entry[0]),
    )
    tower = SquareTower
    parts: ClassVar = {**Pixtral.parts, "encoder": "mistral3", "abstractor": "normed_merger"}

    def square_of(self, config: Any) -> int:
        """Return the side, in patches, of a square that becomes one token."""
        return int(config.spatial_merge_size)

    def abstractor_of(self, config: Any) -> dict[str, Any]:
        """Return the parameters of the abstractor. Raises ValueError for another activation."""
        if config.projector_hidden_act != "gelu":
            raise ValueError(f"abstractor: the activation must be gelu, not {config.projector_hidden_act}")
        eps, bias = config.text_config.rms_norm_eps, config.multimodal_projector_bias
        return {"side": config.spatial_merge_size, "bias": bias, "eps": eps}

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        yield from super().misfits(model)
        if getattr(model.plan.abstractor, "eps", None) != getattr(model.language.config, "rms_norm_eps", None):
            yield "abstractor", "normed_merger with the epsilon of the language model's norms"

    def takes(self, facts: Mapping[str, Any]) -> bool:
        """Return whether a model has this format. Some configurations do not name the type of their tower."""
        return facts.get("model_type") in self.forms

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return Mistral3ForConditionalGeneration

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        return Mistral3Config(spatial_merge_size=model.plan.abstractor.side, **self.common_config(model))
