"""A tiny published Kosmos-2, with a tokenizer in the form of XLM-RoBERTa's."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    Kosmos2Processor,
    PreTrainedTokenizerFast,
)

from tests.train.made import VISION, Made, special_ids


def tokenizer() -> Any:
    """Return a tokenizer of letters with the ids of Kosmos-2's: `<s>`, `<pad>`, `</s>`, `<unk>`, pieces, and `<mask>`."""
    special = ("<s>", "<pad>", "</s>", "<unk>")
    pieces = [(name, 0.0) for name in (*special, "▁", *map(chr, range(33, 127)), *(f"▁{chr(n)}" for n in range(97, 123)))]
    inner = Tokenizer(models.Unigram(pieces, unk_id=special.index("<unk>")))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    inner.add_special_tokens([*special, AddedToken("<mask>", lstrip=True, special=True)])
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>", mask_token="<mask>"
    )


def model(tokenizer: Any) -> Any:
    """Return a Kosmos-2."""
    processor(tokenizer)  # adds tokens to the tokenizer
    text = {"embed_dim": 32, "layers": 2, "ffn_dim": 48, "attention_heads": 4, "vocab_size": len(tokenizer)}
    return Kosmos2ForConditionalGeneration(Kosmos2Config(
        vision_config={**VISION, "image_size": 16, "patch_size": 4}, text_config={**text, **special_ids(tokenizer)}
    ))  # fmt: skip


def processor(tokenizer: Any) -> Any:
    """Return a processor of Kosmos-2, which writes 64 tokens for an image."""
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return Kosmos2Processor(images, tokenizer)


KOSMOS = {
    "Kosmos-2": Made(model, processor, tokenizer, images=(1,), prompt="Question: What is it? Answer:"),
}
