"""Shared pieces of the tiny published models of `published.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from vlmdata_train.model.tokens import byte_tokenizer

TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 320, "max_position_embeddings": 2048,
}  # fmt: skip


VISION = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}


HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


PARTS_TEMPLATE = (  # a template in the form of Idefics3's, with a line end between an image and a text
    "{% for m in messages %}{{ m['role'] | capitalize }}:{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{{ 'IMAGE' if c['type'] == 'image' else '<video>' if c['type'] == 'video' else c['text'] }}"
    "{% endfor %}{% endif %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


@dataclass(frozen=True)
class Made:
    """One family: how its tiny model and its processor are made."""

    model: Callable[[Any], Any]  # from the tokenizer
    processor: Callable[[Any], Any]
    tokenizer: Callable[[], Any]
    images: tuple[int, ...] = (0, 1, 3)  # how many images the questions of the comparison have
    prompt: str | None = None  # a prompt for `What is it?`, if the processor has no chat template and writes the images itself
    backend: str = "pil"  # of the image processor. With "pil" its pixels are bit-equal to ours, but Fuyu's fails
    needs: str | None = None  # a package without which transformers has no processor of this family
    finish: Callable[[Path, Any], None] | None = None  # changes the files of a model where transformers saves others


def tokenizer_with(*names: str, template: str | None) -> Any:
    """Return a tokenizer of bytes with these special tokens and this chat template."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    tokenizer.chat_template = template
    return tokenizer


def special_ids(tokenizer: Any) -> dict[str, Any]:
    """Return the ids of the special tokens for a configuration."""
    names = ("bos", "eos", "pad")
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}


def in_text(config: Any, tokenizer: Any, text: dict[str, Any], image: str, **options: Any) -> Any:
    """Return a configuration with a language model and the id of the image token."""
    ids = {**special_ids(tokenizer), "tie_word_embeddings": False}
    return config(
        text_config={**TEXT, **ids, **text}, image_token_id=tokenizer.convert_tokens_to_ids(image),
        tie_word_embeddings=False, **options,
    )  # fmt: skip
