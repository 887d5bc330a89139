"""Converts open_clip's vision transformer to transformers' `CLIPVisionModel`, the same network with different weight names.

C tower width, N tokens.
"""

from __future__ import annotations

from typing import Any

from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from transformers import CLIPVisionConfig

ACTIVATIONS: dict[type, str] = {nn.GELU: "gelu", QuickGELU: "quick_gelu"}
FRONT = {  # transformers' name: open_clip's name
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "pre_layrnorm.weight": "ln_pre.weight",
    "pre_layrnorm.bias": "ln_pre.bias",
    "post_layernorm.weight": "ln_post.weight",
    "post_layernorm.bias": "ln_post.bias",
}
BLOCK = {"layer_norm1": "ln_1", "self_attn.out_proj": "attn.out_proj", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
         "mlp.fc2": "mlp.c_proj"}  # fmt: skip


def clip_config(visual: Any) -> CLIPVisionConfig:
    """Return the configuration of a CLIPVisionModel that computes the same as `visual`. Raise ValueError if none exists."""
    if type(visual) is not VisionTransformer:
        raise ValueError(f"open_clip's {type(visual).__name__} has no equivalent among transformers' CLIP towers")
    blocks = visual.transformer.resblocks
    activations = {type(block.mlp.gelu) if type(block) is ResidualAttentionBlock else type(block) for block in blocks}
    plain = [visual.patch_dropout, *(norm for block in blocks for norm in (block.ls_1, block.ls_2))]
    if (
        not activations <= set(ACTIVATIONS) or len(activations) > 1 or not isinstance(visual.ln_pre, nn.LayerNorm)
        or not all(isinstance(module, nn.Identity) for module in plain) or visual.attn_pool is not None
    ):  # fmt: skip
        raise ValueError("the open_clip tower has layer scales, pooling, dropout or blocks that CLIP in transformers lacks")
    if len({*visual.image_size}) > 1 or len({*visual.patch_size}) > 1:
        raise ValueError("the images or patches of the open_clip tower are not square")
    first = blocks[0]
    return CLIPVisionConfig(
        hidden_size=visual.conv1.out_channels, intermediate_size=first.mlp.c_fc.out_features, num_hidden_layers=len(blocks),
        num_attention_heads=first.attn.num_heads, image_size=visual.image_size[0], patch_size=visual.patch_size[0],
        hidden_act=ACTIVATIONS[activations.pop()], layer_norm_eps=visual.ln_pre.eps, projection_dim=visual.output_dim,
    )  # fmt: skip


def clip_weights(visual: nn.Module) -> dict[str, Tensor]:
    """Return the weights of `visual` by their names in CLIPVisionModel. The projection to CLIP's space is not included."""
    own = visual.state_dict()
    weights = {theirs: own[ours] for theirs, ours in FRONT.items()}
    for number in range(sum(name.endswith("attn.in_proj_weight") for name in own)):
        here, there = f"transformer.resblocks.{number}.", f"encoder.layers.{number}."
        for kind in ("weight", "bias"):
            for theirs, ours in BLOCK.items():
                weights[f"{there}{theirs}.{kind}"] = own[f"{here}{ours}.{kind}"]
            parts = own[f"{here}attn.in_proj_{kind}"].chunk(3)  # (3 C, C) or (3 C,)
            weights |= {f"{there}self_attn.{n}_proj.{kind}": part for n, part in zip("qkv", parts, strict=True)}
    return weights
