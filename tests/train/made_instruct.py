"""Tiny published models of InstructBLIP, whose Q-Former has a tokenizer of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import (
    BlipImageProcessor,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from tests.train.bert import bert_tokenizer
from tests.train.families import tokenizer_of
from tests.train.made import TEXT, VISION, Made, special_ids, tokenizer_with
from tests.train.made_whole import OPT, with_bos

Q_FORMER = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 30}


def reader() -> Any:
    """Return the tokenizer of the Q-Former, with the settings of InstructBLIP's."""
    tokenizer = bert_tokenizer(truncation_side="left")
    tokenizer.add_special_tokens({"bos_token": "[DEC]"})
    return tokenizer


def instructblip_model(text: dict[str, Any]) -> Callable[[Any], Any]:
    """Return a function that makes an InstructBLIP over this language model."""
    vision = {**VISION, "image_size": 16, "patch_size": 4}

    def made(tokenizer: Any) -> Any:
        instructblip_processor(tokenizer)  # adds the image token
        return InstructBlipForConditionalGeneration(InstructBlipConfig(
            vision_config=vision, qformer_config={**Q_FORMER, "vocab_size": len(reader())},
            text_config={**text, **special_ids(tokenizer)}, num_query_tokens=5,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        ))  # fmt: skip

    return made


def instructblip_processor(tokenizer: Any) -> Any:
    """Return a processor of InstructBLIP."""
    images = BlipImageProcessor(size={"height": 16, "width": 16})
    return InstructBlipProcessor(images, tokenizer, reader(), num_query_tokens=5)


def vicuna_tokenizer() -> Any:
    """Return a tokenizer with pieces like SentencePiece's, which begins a text with the token that also ends it.

    InstructBLIP's tokenizer of Vicuna does so.
    """
    return tokenizer_of("first", ["<unk>"], bos="</s>", adds_bos=True)


INSTRUCT: dict[str, Made] = {
    "InstructBLIP": Made(
        instructblip_model({"model_type": "llama", **TEXT, "vocab_size": 512}), instructblip_processor, vicuna_tokenizer,
        images=(1,), prompt="What is it?",
    ),
    "InstructBLIP over an OPT": Made(
        instructblip_model(OPT), instructblip_processor, lambda: with_bos(tokenizer_with(template=None)), images=(1,),
        prompt="What is it?",
    ),
}  # fmt: skip
