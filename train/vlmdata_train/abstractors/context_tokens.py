"""LLaMA-VID's tokens: for each image or frame one context token, which depends on the question, and few content tokens.

The question becomes text queries, which attend to the patches. The context token is the projected mean of what they read. The
content tokens are averages of the patches, projected by an MLP, and do not depend on the question.

Source: Li et al. 2023, LLaMA-VID, and its code.

P tiles, N patches, T text queries, G side of the grid of content tokens, C and D widths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from vlmdata_train.abstractors.average_pool import average_to
from vlmdata_train.abstractors.mlp import Mlp
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid
from vlmdata_train.model.parts import make_part
from vlmdata_train.model.question_text import words_of
from vlmdata_train.model.surroundings import Surroundings, TextFacts, padded


class Words(nn.Module):
    """The embeddings of the question's tokens in the language model, projected: text queries (T, C) of each tile."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(text_width, width)

    def forward(self, surroundings: Surroundings) -> tuple[Tensor, Tensor]:
        """Return the queries (P, T, C), and which of them are not padding, bool (P, T).

        An empty question has one query, the projection of a zero.
        """
        ids, is_word = surroundings.question_of_tiles()
        words = surroundings.embed(ids).masked_fill(~is_word[..., None], 0.0)
        is_empty = ~is_word.any(1, keepdim=True)
        return self.project(words), torch.cat([is_word[:, :1] | is_empty, is_word[:, 1:]], 1)


class ContextAndContent(nn.Module):
    """The network of `ContextTokens`: patches (N, C) of each tile, and the question -> tokens (1 + G^2, D) of each tile."""

    reads_surroundings = True
    returns_tiles = True

    def __init__(self, text: nn.Module, content: nn.Module, facts: EncoderFacts, out_width: int, grid: Grid, side: int) -> None:
        super().__init__()
        self.text, self.content, self.grid, self.side = text, content, grid, side
        self.key = nn.Linear(facts.width, facts.width)
        self.value = nn.Linear(facts.width, out_width)

    def forward(self, tiles: Sequence[Tensor], surroundings: Surroundings) -> list[Tensor]:
        """Return the context token and then the content tokens of each tile."""
        context = self.value(self._read(tiles, surroundings))[:, None]  # (P, 1, D)
        content = self.content(torch.stack([self._averages(tile) for tile in tiles]))  # (P, G^2, D)
        return list(torch.cat([context, content], 1))

    def _read(self, tiles: Sequence[Tensor], surroundings: Surroundings) -> Tensor:
        """Return the mean of what the text queries read from the patches, (P, C)."""
        patches, is_patch = padded(tiles)
        if isinstance(self.text, Words):
            queries, is_query = self.text(surroundings)
        else:
            queries = torch.stack(self.text(tiles, surroundings))
            is_query = queries.new_ones(queries.shape[:2], dtype=torch.bool)
        read = functional.scaled_dot_product_attention(queries, self.key(patches), patches, attn_mask=is_patch[:, None])
        read = read.masked_fill(~is_query[..., None], 0.0)
        return read.sum(1) / is_query.sum(1, keepdim=True).to(read.dtype)

    def _averages(self, tile: Tensor) -> Tensor:
        """Return the averages of a tile's patches: (N, C) -> (G^2, C). Raises ValueError for a tile of another grid."""
        if self.side == 1:
            return tile.mean(0, keepdim=True)
        if len(tile) != self.grid.tokens:
            raise ValueError(f"a tile has {len(tile)} patches, but `side` above 1 needs {self.grid.tokens}. Set side: 1")
        return average_to(tile[None], self.grid, self.side)[0]


@dataclass(frozen=True)
class ContextTokens(Mlp):
    """One context token and `side` x `side` content tokens for each tile; an MLP projects the content.

    The text queries of LLaMA-VID are the outputs of a Q-Former that reads the question with BERT's tokenizer and the patches
    (`q_former: {}` and `tokenizer`). By default they are the language model's embeddings of the question, because these need
    no second vocabulary and no pretrained text encoder.
    """

    side: int = 1  # LLaMA-VID: 1 for videos, and more or all patches for images
    q_former: dict[str, Any] | None = None  # parameters of `instruct_q_former`; None: the language model's embeddings
    tokenizer: str | None = None  # of the Q-Former; hub name or folder; None: the language model's tokenizer
    max_question: int = 256  # most tokens of a question, as in LLaMA-VID, which however leaves out the first ones

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side < 1:
            raise ValueError(f"side must be 1 or more, not {self.side}")
        if self.tokenizer is not None and self.q_former is None:
            raise ValueError("`tokenizer` needs `q_former`. Without it, the language model's embeddings are the text queries")
        if unknown := {"tokenizer", "max_question"} & set(self.q_former or {}):
            raise ValueError(f"set {sorted(unknown)} beside `q_former`, not in it")
        self._reader()  # raises an error for a wrong parameter

    def grid_of(self, grid: Grid) -> Grid:
        """Return the grid of content tokens. The context token is an extra token before it."""
        if self.side > 1 and grid.extra:
            raise ValueError("context_tokens: with `side`, a class token has no place in the grid of patches")
        return Grid(self.side, self.side, extra=1)

    def question_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """Return the second tokenizer, or None if the part uses the language model's."""
        own: PreTrainedTokenizerBase | None = self._reader().question_tokenizer()
        return own

    def question_ids(self, tokenizer: Any, text: str) -> list[int]:
        """Return the ids of a question. `tokenizer` is the language model's."""
        if self.q_former is None:
            return words_of(tokenizer, text, self.max_question)
        ids: list[int] = self._reader().question_ids(tokenizer, text)
        return ids

    def build(  # type: ignore[override]  # an MLP needs no facts of the language model
        self, facts: EncoderFacts, out_width: int, grid: Grid, *, text: TextFacts
    ) -> nn.Module:
        """Return the module. With a `side` above 1 it accepts only tiles of this grid."""
        self.grid_of(grid)
        content = super().build(facts, out_width, grid)
        words: nn.Module = Words(text.width, facts.width)
        if self.q_former is not None:
            words = self._reader().build(facts, facts.width, grid, text=text)
        return ContextAndContent(words, content, facts, out_width, grid, self.side)

    def _reader(self) -> Any:
        """Return the part `instruct_q_former` that reads the question. Raises RecipeError for a wrong parameter."""
        own = {"tokenizer": self.tokenizer, "max_question": self.max_question}
        return make_part("abstractor", {"instruct_q_former": {**(self.q_former or {}), **own}})
