"""Flamingo's gated cross-attention: new layers in the language model attend to preceding images.

Alayrac et al. 2022, Flamingo; the layers have the form of Idefics 1 (RMS norms and a gated MLP, as in Llama). The parameters
also describe the layers of Llama 3.2 Vision (Dubey et al. 2024, The Llama 3 Herd of Models).
B rows, T tokens, V features of all images, W their width, D width, H heads, E head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.model.attention import AttentionPlan
from vlmdata_train.model.cross_packing import Seen, cross_attend, first_of_runs, latest_images
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.repeated_blocks import blocks_of


class CrossLayer(nn.Module):
    """A layer in which hidden states attend to image features. Its gates start at 0, so that it changes nothing at first."""

    def __init__(self, width: int, feature_width: int, heads: int, part: CrossAttention) -> None:
        super().__init__()
        head_width = width // heads
        key_heads = part.key_heads or heads
        if heads % key_heads:
            raise ValueError(f"cross_attention: the number of heads, {heads}, must be a multiple of key_heads, {key_heads}")
        self.head_width, self.mlp_without_image = head_width, part.mlp_without_image
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width, eps=part.eps), nn.RMSNorm(width, eps=part.eps)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(feature_width, key_heads * head_width, bias=False)
        self.value = nn.Linear(feature_width, key_heads * head_width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.query_norm = nn.RMSNorm(head_width, eps=part.eps) if part.qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(head_width, eps=part.eps) if part.qk_norm else nn.Identity()
        inner = part.mlp_width or 4 * width
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)
        size = width if part.gates == "vector" else 1
        self.attention_gate, self.mlp_gate = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(size))

    def feature_weights(self) -> list[nn.Parameter]:
        """Return the weights that are applied to image features, not to text."""
        return [*self.key.parameters(), *self.value.parameters()]

    def forward(self, hidden: Tensor, seen: Seen) -> Tensor:
        """Return the hidden states plus gated attention to the images and a gated MLP: (B, T, D) -> (B, T, D)."""
        read = self._read(self.attention_norm(hidden), seen)
        hidden = hidden + self.attention_gate.tanh() * read
        inner = self.mlp_norm(hidden)
        inner = self.down(functional.silu(self.gate(inner)) * self.up(inner))
        if not self.mlp_without_image:
            inner = inner * (seen.latest >= 0)[..., None]
        return hidden + self.mlp_gate.tanh() * inner

    def _read(self, hidden: Tensor, seen: Seen) -> Tensor:
        query = self._in_heads(self.query(hidden).flatten(0, 1))
        key, value = self._keys_and_values(seen, hidden.dtype)
        read = cross_attend(seen, self.query_norm(query), key, value)  # (B T, H, E)
        return self.output(read.flatten(1)).view_as(hidden)  # no bias, so a token that reads no image stays unchanged

    def _keys_and_values(self, seen: Seen, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the keys and values of the image features, (1, G, V, E) each for G heads of keys."""
        if seen.kept is not None and self in seen.kept:
            return seen.kept[self]
        features = seen.features.to(dtype)
        key, value = self.key_norm(self._in_heads(self.key(features))), self._in_heads(self.value(features))
        if seen.kept is not None:
            seen.kept[self] = key, value
        return key, value

    def _in_heads(self, states: Tensor) -> Tensor:
        """Divide states among heads: (B T or V, H E) -> (1, H, B T or V, E)."""
        return states.unflatten(-1, (-1, self.head_width)).transpose(0, 1)[None]


class CrossLayers(nn.Module):
    """The cross-attention layers. One runs before every `part.every`-th layer of the language model, from `part.first` on."""

    def __init__(self, language: nn.Module, feature_width: int, image_token_id: int, part: CrossAttention) -> None:
        super().__init__()
        self.image_token_id, self.reads_runs = image_token_id, part.runs == "whole"
        config: Any = language.config
        config = config.get_text_config()
        blocks = blocks_of(language)
        if part.first >= len(blocks):
            raise ValueError(f"cross_attention: first must be less than the number of layers, {len(blocks)}, not {part.first}")
        self.layers = nn.ModuleList()
        for block in blocks[part.first :: part.every]:
            layer = CrossLayer(config.hidden_size, feature_width, part.heads or config.num_attention_heads, part)
            self.layers.append(layer)
            # a hook, so that the language model keeps its classes and the names of its weights
            block.register_forward_pre_hook(_Before(layer), with_kwargs=True)

    def two_way_of(self, labels: Tensor, segment_ids: Tensor, ids: Tensor) -> Tensor | None:
        """Return None, because attention over text is causal."""
        return None

    def weights_of_tokens(self) -> dict[str, list[nn.Parameter]]:
        """Return the weights that do not process all tokens: those that are applied to image features."""
        layers = [layer for layer in self.layers if isinstance(layer, CrossLayer)]
        return {"features": [weight for layer in layers for weight in layer.feature_weights()]}

    def forward(
        self, ids: Tensor, embeddings: Tensor, features: Tensor, counts: list[int], segment_ids: Tensor, packing: AttentionPlan
    ) -> Tensor:
        """Store the features in `packing`, from which the cross-attention layers read them. Return the embeddings unchanged."""
        marks = ids == self.image_token_id
        latest = latest_images(marks, segment_ids)
        first = first_of_runs(marks, segment_ids, latest) if self.reads_runs else latest
        packing.images = Seen.of(features, counts, latest, first, packing.backend)
        return embeddings


class _Before:
    """A hook that runs a cross-attention layer on the input of a layer of the language model."""

    def __init__(self, layer: CrossLayer) -> None:
        self.layer = layer

    def __call__(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        if args:
            return (self.layer(args[0], kwargs["packing"].images), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.layer(kwargs["hidden_states"], kwargs["packing"].images)}


@dataclass(frozen=True)
class CrossAttention:
    """Fusion by cross-attention: the text has one token for each image, and the image features stay outside the text."""

    every: int = 4  # layers of the language model for each new one; Flamingo: 1 (3B), 4 (9B), 7 (80B)
    first: int = 0  # number of layers of the language model before the first new one; Llama 3.2 Vision: 3
    heads: int | None = None  # None: as many heads as the language model has
    key_heads: int | None = None  # heads of keys and values, each read by several query heads; None: as many as `heads`
    mlp_width: int | None = None  # width of the gated MLP; None: 4 times the width
    qk_norm: bool = False  # RMS norms on queries and keys
    mlp_without_image: bool = True  # also run the MLP for tokens that read no image; Llama 3.2 Vision: false
    # width of the features that the abstractor makes: the tower's (Flamingo), or the language model's (Llama 3.2 Vision)
    features: Literal["tower", "language"] = "tower"
    gates: Literal["scalar", "vector"] = "scalar"
    # images that text after consecutive images reads: all (whole), or the last (latest, as in Idefics 1 and OpenFlamingo)
    runs: Literal["whole", "latest"] = "whole"
    eps: float = 1e-6  # epsilon of the RMS norms

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be 1 or more, not {self.every}")
        if self.first < 0:
            raise ValueError(f"first must be 0 or more, not {self.first}")

    def positions_of(self, tokens: int) -> int:
        """Return 1, because the text has one image token for each image."""
        return 1

    def reads(self, facts: EncoderFacts, language_width: int) -> int:
        """Return the width of the features from which keys and values are computed: the tower's, or the language model's."""
        return facts.width if self.features == "tower" else language_width

    def build(self, language: nn.Module, width: int, image_token_id: int) -> nn.Module:
        """Return the layers. Hooks run them in the language model."""
        return CrossLayers(language, width, image_token_id, self)
