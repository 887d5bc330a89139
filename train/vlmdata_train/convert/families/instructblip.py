"""InstructBLIP over a decoder-only language model, as `InstructBlipForConditionalGeneration` of transformers.

Its processor gives the whole prompt to the Q-Former, and the trainer gives the texts of the user before the first answer. The
template makes both equal for the first question: the prompt is the question without other words, as in InstructBLIP.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import (
    BlipImageProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from vlmdata_train.abstractors.instruct_q_former import InstructQFormer
from vlmdata_train.convert.families.blip2 import Blip2, images_first, sizes_of
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.convert.served import pixel_options, square
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import QUESTION_TOKENIZER

FOLDER = "qformer_tokenizer"  # of the Q-Former's tokenizer, in a published model
UNCHECKED = ("pad_token_id", "initializer_range")  # entries of a Q-Former's configuration that do not change its output


class InstructBlip(Blip2):
    """InstructBLIP: BLIP-2 with a Q-Former that reads the question, over a language model such as Vicuna."""

    title = "InstructBLIP"
    forms = ("instructblip",)
    parts: ClassVar[Mapping[str, str]] = {**Blip2.parts, "abstractor": "instruct_q_former"}
    template: ClassVar[str] = images_first("('\\n' if not loop.first and loop.previtem['role'] != 'assistant' else '') + text")
    their_config: ClassVar[Any] = InstructBlipConfig
    their_class: ClassVar[Any] = InstructBlipForConditionalGeneration

    def q_former(self, start: Published) -> dict[str, Any]:
        """Return the parameters of the abstractor. Raises ValueError for a Q-Former that computes otherwise."""
        parameters = {"tokenizer": f"{start.name}/{FOLDER}", **sizes_of(start.config)}
        theirs = start.config.qformer_config
        ours = InstructQFormer(**parameters).config(start.config.vision_config.hidden_size, len(start.tokenizer))
        for name, value in plain_config(ours).items():
            if name not in UNCHECKED and getattr(theirs, name) != value:
                raise ValueError(
                    f"abstractor: {start.name} has {name}: {getattr(theirs, name)}, but only {value} can be loaded"
                )
        return parameters

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        config = super().config(model)
        config.qformer_config.pad_token_id = self._question_tokenizer(model).pad_token_id
        return config

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor. It writes no chat template: its prompt is the question without other words."""
        images = BlipImageProcessor(size=square(model.plan.facts.image_size), **pixel_options(model.plan))
        return InstructBlipProcessor(
            images, copy.deepcopy(model.tokenizer), copy.deepcopy(self._question_tokenizer(model)),
            num_query_tokens=model.plan.abstractor.queries,
        )  # fmt: skip

    def _question_tokenizer(self, model: VisionLanguageModel) -> Any:
        """Return the tokenizer of the Q-Former: its own, or else the language model's."""
        return model.tokenizers.get(QUESTION_TOKENIZER, model.tokenizer)
