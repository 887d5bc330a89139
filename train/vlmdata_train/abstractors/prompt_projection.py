"""An MLP whose patches first read the question, the earlier images of the sample, or both, through gated cross-attention.

The gate is zero at the start, so the part begins as a plain MLP. Source: our own design; the gate is that of Flamingo (Alayrac
et al. 2022), and the sizes are a choice without a published source.

P tiles, N patches, S samples, L tokens of a question, K keys of a batch, H heads, E head width, C and D widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.abstractors.mlp import Mlp
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid
from vlmdata_train.model.model_recipe import check_range
from vlmdata_train.model.question_text import words_of
from vlmdata_train.model.surroundings import Surroundings, TextFacts, padded


class KeysValues(nn.Module):
    """A norm and two linear layers that make keys and values of one kind of input."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.key, self.value = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """Return keys and values: (K, width) -> (2, K, H E)."""
        states = self.norm(states)
        return torch.stack([self.key(states), self.value(states)])


class SampleAttention(nn.Module):
    """Attention from the patches of each tile to the question and to the earlier images of the tile's sample.

    The keys of the whole batch are in one sequence with a mask, so that all tiles run at once. A key and a value of zeros are
    always read too. A patch with nothing else to read therefore reads zeros.
    """

    def __init__(self, part: PromptProjection, width: int, text_width: int) -> None:
        super().__init__()
        inner = part.heads * part.head_width
        self.heads = part.heads
        self.norm = nn.LayerNorm(width)
        self.query, self.output = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)
        self.words = KeysValues(text_width, inner) if part.reads != "images" else None
        self.images = KeysValues(width, inner) if part.reads != "question" else None

    def forward(self, patches: Tensor, is_patch: Tensor, surroundings: Surroundings) -> Tensor:
        """Return what the patches read: (P, N, C) -> (P, N, C). `is_patch` (P, N) is False for padding."""
        query = self.query(self.norm(patches)).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (P, H, N, E)
        both, masks = [query.new_zeros(2, 1, query.shape[1] * query.shape[3])], [is_patch.new_ones(len(patches), 1)]
        of_sample, of_image = surroundings.of_sample, surroundings.of_image
        if self.words is not None:
            ids = surroundings.questions
            both.append(self.words(surroundings.embed(ids.clamp(min=0)).flatten(0, 1)))
            is_own = of_sample[:, None] == torch.arange(len(ids), device=ids.device)  # (P, S)
            masks.append((is_own[:, :, None] & (ids >= 0)).flatten(1))  # (P, S L)
        if self.images is not None:
            both.append(self.images(patches.flatten(0, 1)))
            is_earlier = (of_sample[:, None] == of_sample) & (of_image[:, None] > of_image)  # (P, P)
            masks.append((is_earlier[:, :, None] & is_patch).flatten(1))  # (P, P N)
        key, value = torch.cat(both, 1).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (H, K, E) each
        shape = (len(patches), -1, -1, -1)
        mask = torch.cat(masks, 1)[:, None, None]  # (P, 1, 1, K)
        read = functional.scaled_dot_product_attention(query, key.expand(shape), value.expand(shape), attn_mask=mask)
        return self.output(read.transpose(1, 2).flatten(2))


class PromptedMlp(nn.Module):
    """The network of `PromptProjection`: patches (N, C) of each tile -> tokens (N, D) of each tile."""

    reads_surroundings = True
    returns_tiles = True

    def __init__(self, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.read_gate = nn.Parameter(torch.zeros(1))

    def forward(self, tiles: Sequence[Tensor], surroundings: Surroundings) -> list[Tensor]:
        """Return the projected patches of each tile."""
        patches, is_patch = padded(tiles)
        patches = patches + self.read_gate.tanh() * self.attention(patches, is_patch, surroundings)
        return [made[: len(tile)] for made, tile in zip(self.mlp(patches), tiles, strict=True)]


@dataclass(frozen=True)
class PromptProjection(Mlp):
    """An MLP on patches that have read the question or other images.

    Questions and images are read as sets: the order of words and of images does not matter here, and the language model sees it
    anyway. A patch reads only the images before its own, never later ones, so that an image has the same features in a sample
    that is cut off or continues. It does not read the other tiles of its image or the other frames of its video.
    """

    reads: Literal["question", "images", "both"] = "question"
    heads: int = 8
    head_width: int = 64
    max_question: int = 128  # most tokens of a question

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "heads head_width max_question", least=1)

    def question_ids(self, tokenizer: Any, text: str) -> list[int]:
        """Return the ids of a question with the language model's tokenizer, or [] if the part reads only images."""
        return [] if self.reads == "images" else words_of(tokenizer, text, self.max_question)

    def build(  # type: ignore[override]  # an MLP needs no facts of the language model
        self, facts: EncoderFacts, out_width: int, grid: Grid, *, text: TextFacts
    ) -> nn.Module:
        """Return the module. It accepts any number of patches."""
        return PromptedMlp(SampleAttention(self, facts.width, text.width), super().build(facts, out_width, grid))
