"""Prompts that are continued token by token, with a cache of keys and values.

B prompts, padded on the right, each with one or several continuations: N texts in all. T prompt tokens, S all tokens so far,
D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from vlmdata_train.model.attention import AttentionPlan
from vlmdata_train.model.batch import IGNORE, Batch
from vlmdata_train.model.model import VisionLanguageModel


class Continuation:
    """The texts so far, and the logits of their next tokens.

    `ids` (N, S) has the tokens of prompts and continuations. Padding is replaced by the first token of its prompt, so that it
    adds no token to a text. `logits` is (N, vocabulary), float32. The texts of a prompt are neighbours.
    """

    def __init__(self, model: VisionLanguageModel, batch: Batch, copies: int = 1) -> None:
        """Run the prompts. Each prompt gets `copies` equal texts. Raises ValueError for a packed batch."""
        if int(batch.segment_ids.max()) > 1:
            raise ValueError("the batch must have one prompt per row, not packed samples")
        self._model = model
        # without the model's configuration, because sliding layers would then drop keys that the masks need
        self._cache: Any = DynamicCache()
        seen, positions = batch.segment_ids > 0, batch.position_ids  # (B, T), `seen` is False for padding
        lengths = seen.sum(1)  # (B,)
        masks = causal_masks(seen, positions, positions, model.windows)
        two_way = model.two_way_of(replace(batch, labels=torch.full_like(batch.labels, IGNORE)))  # a prompt has no answers
        if two_way is not None:
            masks = {window: mask | (two_way[:, None, :, None] & two_way[:, None, None]) for window, mask in masks.items()}
        packing = AttentionPlan("mask", masks=masks)
        places = model.place(batch)
        hidden = model.run_language(model.embed(batch, packing), places, packing, self._cache)
        rows = torch.arange(len(seen), device=seen.device)
        logits = model.logits_of(hidden[rows, lengths - 1]).float()  # of the last token of each prompt
        prompts = rows.repeat_interleave(copies)  # (N,) prompt of each text
        if copies > 1:
            self._cache.batch_repeat_interleave(copies)
        self.ids, self.logits = batch.input_ids.where(seen, batch.input_ids[:, :1])[prompts], logits[prompts]
        self._seen, self._key_positions = seen[prompts], positions[prompts]  # (N, S) each
        self._position = lengths[prompts, None]  # (N, 1) of the next token
        begin = model.positions.after(places, lengths)[prompts, None]
        self._place = begin.expand(*places.shape[:-2], *begin.shape)  # the same for the language model, (N, 1) or (axes, N, 1)
        self._images = None if packing.images is None else packing.images.at(lengths[prompts] - 1)

    def append(self, tokens: Tensor, texts: Tensor | None = None) -> None:
        """Append a token (N,) to each text, and compute the logits of the next token.

        With `texts` (N,), text n is first replaced by text `texts[n]`, which must be of the same prompt.
        """
        if texts is not None:
            self._cache.reorder_cache(texts)
            self.ids = self.ids[texts]
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)
        self._seen = torch.cat([self._seen, torch.ones_like(self._seen[:, :1])], 1)
        self._key_positions = torch.cat([self._key_positions, self._position], 1)
        masks = causal_masks(self._seen, self._position, self._key_positions, self._model.windows)
        packing = AttentionPlan("mask", masks=masks, images=self._images)
        embeddings = self._model.language.get_input_embeddings()(tokens[:, None])
        hidden = self._model.run_language(embeddings, self._place, packing, self._cache)
        self.logits = self._model.logits_of(hidden[:, -1]).float()
        self._position, self._place = self._position + 1, self._place + 1


def causal_masks(seen: Tensor, queries: Tensor, keys: Tensor, windows: Iterable[int | None]) -> dict[int | None, Tensor]:
    """Return a mask for each window, bool (N, 1, T, S): the keys that each query sees.

    `seen` (N, S) is False for padding. `queries` (N, T) and `keys` (N, S) are positions.
    """
    gap = queries[:, :, None] - keys[:, None]  # (N, T, S)
    causal = (gap >= 0) & seen[:, None]
    return {window: (causal if window is None else causal & (gap < window))[:, None] for window in windows}
