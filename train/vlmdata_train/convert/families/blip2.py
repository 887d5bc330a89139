"""BLIP-2 over a decoder-only language model, as `Blip2ForConditionalGeneration` of transformers. InstructBLIP is a subclass."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from torch import Tensor
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, Blip2QFormerConfig, BlipImageProcessor

from vlmdata_train.convert.family import Family
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.convert.served import FILTERS, pixel_options, square
from vlmdata_train.convert.towers import check_normalisation
from vlmdata_train.data.prompts import written_before
from vlmdata_train.encoders.blip2 import Blip2Tower
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.tokens import IMAGE
from vlmdata_train.model.vision_half import CLIP_MEAN, CLIP_STD


def images_first(said: str) -> str:
    """Return a chat template that writes all images, and then the texts. The tokenizer adds BOS.

    `said` is a Jinja expression: what is written for `text`, a message that is not an answer. The published models have no chat
    template.
    """
    return (
        "{%- set ns = namespace(images=0) -%}{%- for m in messages -%}"
        "{%- set ns.images = ns.images + (m['content'].split('" + IMAGE + "') | length) - 1 -%}{%- endfor -%}"
        "{{- '" + IMAGE + "' * ns.images -}}{%- for m in messages -%}"
        "{%- set text = m['content'].replace('" + IMAGE + "', '') | trim -%}"
        "{{- ' ' + text + eos_token if m['role'] == 'assistant' else " + said + " -}}{%- endfor -%}"
    )


QUERIES = "abstractor.queries"


class Blip2(Family):
    """BLIP-2: EVA's tower, a Q-Former, and a decoder-only language model such as OPT."""

    title = "BLIP-2"
    forms = ("blip-2",)
    names = (
        ("vision_model.", "encoder.model."),
        ("query_tokens", QUERIES),
        ("qformer.", "abstractor.transformer."),
        ("language_projection.", "abstractor.project."),
        ("language_model.", "language."),
    )
    tower = Blip2Tower
    parts: ClassVar[Mapping[str, str]] = {
        "encoder": "blip2", "preprocessing": "resize", "abstractor": "q_former", "fusion": "tokens", "positions": "rope",
        "writing": "plain",
    }  # fmt: skip
    # what a subclass changes, beside the parts
    template: ClassVar[str] = images_first("'Question: ' + text + ' Answer:'")  # the prompt of its paper's question answering
    their_config: ClassVar[Any] = Blip2Config
    their_class: ClassVar[Any] = Blip2ForConditionalGeneration

    def our_tensor(self, name: str, tensor: Tensor, rows: int) -> Tensor:
        """Return the tensor. The queries of transformers are a batch of one."""
        return tensor.squeeze(0) if name == QUERIES else tensor

    def their_tensor(self, name: str, tensor: Tensor, model: VisionLanguageModel) -> Tensor:
        """Return the tensor, with the queries as a batch of one."""
        return tensor[None] if name == QUERIES else tensor

    def recipe(self, start: Published) -> ModelRecipe:
        """Return the parts. Raises ValueError for a language model with an encoder, or a Q-Former that does not fit."""
        config, images = start.config, start.images
        check_normalisation(start, CLIP_MEAN, CLIP_STD)
        if not config.use_decoder_only_language_model:
            raise ValueError(f"language: {start.name} has a {config.text_config.model_type}, which has an encoder")
        if config.image_token_index is None:
            raise ValueError(
                f"writing: the configuration of {start.name} has no image token, as in older files of {self.title}"
            )
        return ModelRecipe(
            encoder={"blip2": {"config": plain_config(config.vision_config, model_type=None)}},
            preprocessing={"resize": {"resample": FILTERS[int(images.resample)]}},
            abstractor={self.parts["abstractor"]: self.q_former(start)},
            writing={"plain": {"image_token": start.token(config.image_token_id), "bos": "after_images"}},
            language={"hf_causal": {
                "config": plain_config(config.text_config, tie_word_embeddings=start.ties), "tokenizer": start.name,
                "chat_template": self.template,
            }},
        )  # fmt: skip

    def q_former(self, start: Published) -> dict[str, Any]:
        """Return the parameters of the abstractor. Raises ValueError for a Q-Former that does not fit."""
        if start.config.qformer_config.use_qformer_text_input:
            raise ValueError(f"abstractor: the Q-Former of {start.name} reads text")
        for name in ("hidden_act", "layer_norm_eps"):
            own, ours = getattr(start.config.qformer_config, name), getattr(Blip2QFormerConfig(), name)
            if own != ours:
                raise ValueError(f"abstractor: {start.name} has {name}: {own}, but only {ours} can be loaded")
        return sizes_of(start.config)

    def misfits(self, model: VisionLanguageModel) -> Iterator[tuple[str, str]]:
        """Yield each part that the format cannot hold, and what the format supports."""
        yield from super().misfits(model)
        if model.plan.writing.bos != "after_images" or model.image_token != IMAGE:
            yield "writing", f"plain, with BOS after the images and the image token {IMAGE}"
        if model.tokenizer.bos_token and not written_before(model.tokenizer, model.image_token):
            yield "language", "a tokenizer that adds BOS to each text, because its processor does not add it"

    def reference_of(self, model: VisionLanguageModel) -> Any:
        """Return the class in transformers."""
        return self.their_class

    def config(self, model: VisionLanguageModel) -> Any:
        """Return the configuration."""
        q_former: Any = model.abstractor.transformer
        return self.their_config(
            vision_config=model.encoder.model.config.to_dict(), qformer_config=q_former.config.to_dict(),
            text_config=self.text_config(model), num_query_tokens=model.plan.abstractor.queries,
            image_token_index=model.image_token_id, dtype=next(model.parameters()).dtype,
        )  # fmt: skip

    def processor(self, model: VisionLanguageModel) -> Any:
        """Return the processor. It writes no chat template, so a user must write the words around a question."""
        images = BlipImageProcessor(size=square(model.plan.facts.image_size), **pixel_options(model.plan))
        return Blip2Processor(images, copy.deepcopy(model.tokenizer), num_query_tokens=model.plan.abstractor.queries)


def sizes_of(config: Any) -> dict[str, Any]:
    """Return the number of queries and the sizes of a Q-Former from the configuration of its model, for a recipe."""
    q_former = config.qformer_config
    return {
        "queries": config.num_query_tokens, "width": q_former.hidden_size, "layers": q_former.num_hidden_layers,
        "heads": q_former.num_attention_heads, "mlp_width": q_former.intermediate_size,
        "every": q_former.cross_attention_frequency, "dropout": q_former.hidden_dropout_prob,
    }  # fmt: skip
