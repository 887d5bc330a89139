"""Tiny published models of families that show images to the text by cross-attention."""

from __future__ import annotations

from typing import Any

from transformers import IdeficsConfig, IdeficsForVisionText2Text, IdeficsImageProcessor, IdeficsProcessor

from tests.train.made import PARTS_TEMPLATE, TEXT, Made, special_ids, tokenizer_with
from tests.train.made_tiled import IDEFICS_TOKENS

IDEFICS_TEMPLATE = "{{ bos_token }}" + PARTS_TEMPLATE.replace("IMAGE", "<image>")


def idefics_model(*, gates: str = "float", every: int = 1, norms: bool = False, resampler: bool = True) -> Any:
    """Return a function that makes an Idefics 1. The image token is the first id of the added ones."""
    vision = {"embed_dim": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 16,
              "patch_size": 4}  # fmt: skip
    latents = {"use_resampler": True, "resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 2,
               "resampler_head_dim": 6, "qk_layer_norms_perceiver": norms}  # fmt: skip
    text = {name: value for name, value in TEXT.items() if name not in ("vocab_size", "num_key_value_heads")}

    def made(tokenizer: Any) -> Any:
        first = tokenizer.convert_tokens_to_ids("<image>")
        return IdeficsForVisionText2Text(IdeficsConfig(
            **text, **special_ids(tokenizer), vocab_size=first, additional_vocab_size=320 - first, vision_config=vision,
            use_resampler=resampler, perceiver_config=latents if resampler else None, cross_layer_interval=every,
            qk_layer_norms=norms, alpha_type=gates, freeze_text_layers=False, freeze_vision_layers=False,
        ))  # fmt: skip

    return made


CROSS: dict[str, Made] = {
    f"Idefics 1, {name}": Made(
        idefics_model(**options), lambda tokenizer: IdeficsProcessor(IdeficsImageProcessor(image_size=16), tokenizer),
        lambda: tokenizer_with(*IDEFICS_TOKENS, template=IDEFICS_TEMPLATE),
    )
    for name, options in {
        "float gates": {"every": 2}, "vector gates": {"gates": "vector", "norms": True}, "no resampler": {"resampler": False},
    }.items()
}  # fmt: skip
