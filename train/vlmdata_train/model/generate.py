"""Generate tokens with a cache of keys and values.

B rows, one prompt per row, padded on the right; T prompt tokens, S all tokens so far, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor
from transformers import DynamicCache

from vlmdata_train.model.attention import AttentionPlan
from vlmdata_train.model.batch import IGNORE, Batch
from vlmdata_train.model.model import VisionLanguageModel


@torch.no_grad()
def generate(
    model: VisionLanguageModel, batch: Batch, *, max_new_tokens: int, stop_ids: Iterable[int], temperature: float = 0.0,
    top_p: float = 1.0, generator: torch.Generator | None = None, is_over: Callable[[bool], bool] = bool,
) -> list[list[int]]:  # fmt: skip
    """Continue the prompt of each row, and return the new token ids of each row without the stop token.

    A row ends at any of `stop_ids`; see `ChatTemplate.stop_ids`. Temperature 0 takes the most likely token. After each token,
    `is_over` receives whether all rows have ended, and returns whether to stop. Under FSDP `is_over` must return the same on
    all ranks, because all ranks must take the same number of steps. Raises ValueError for a packed batch.
    """
    if int(batch.segment_ids.max()) > 1:
        raise ValueError("the batch must have one prompt per row, not packed samples")
    cache = DynamicCache()  # without the model's configuration, because sliding layers would then drop keys that the masks need
    lengths = (batch.segment_ids > 0).sum(1)  # (B,)
    seen = batch.segment_ids > 0  # (B, S), keys that are not padding
    positions = batch.position_ids
    masks = causal_masks(seen, positions, positions, model.windows)
    prefix = model.prefix_of(replace(batch, labels=torch.full_like(batch.labels, IGNORE)))  # a prompt has no answers
    if prefix is not None:
        masks = {window: mask | prefix[:, None, None] for window, mask in masks.items()}
    packing = AttentionPlan("mask", masks=masks)
    places = model.place(batch)
    hidden = model.run_language(model.embed(batch, packing), places, packing, cache)
    begin = model.positions.after(places, lengths)  # (B,)
    hidden = hidden[torch.arange(len(hidden)), lengths - 1]  # (B, D), the last token of each prompt
    images = None if packing.images is None else packing.images.at(lengths - 1)
    stops = torch.tensor(sorted(stop_ids), device=hidden.device)
    rows: list[list[int]] = [[] for _ in range(len(hidden))]
    done = torch.zeros(len(hidden), dtype=torch.bool, device=hidden.device)
    key_positions = positions
    for step in range(max_new_tokens):
        logits = model.logits_of(hidden).float()
        logits[:, len(model.tokenizer) :] = -torch.inf  # ids that only pad the embedding matrix
        logits[:, [model.image_token_id, model.video_token_id or model.image_token_id]] = -torch.inf  # cannot be generated
        token = choose(logits, temperature, top_p, generator)  # (B,)
        done |= torch.isin(token, stops)
        for row, (finished, number) in enumerate(zip(done.tolist(), token.tolist(), strict=True)):
            if not finished:
                rows[row].append(number)
        if step == max_new_tokens - 1 or is_over(bool(done.all())):
            break
        position = (lengths + step)[:, None]
        seen = torch.cat([seen, torch.ones_like(done)[:, None]], 1)
        key_positions = torch.cat([key_positions, position], 1)
        own = AttentionPlan("mask", masks=causal_masks(seen, position, key_positions, model.windows), images=images)
        embedding = model.language.get_input_embeddings()(token[:, None])
        place = (begin + step)[:, None].expand(*places.shape[:-1], 1)
        hidden = model.run_language(embedding, place, own, cache)[:, -1]
    return rows


def causal_masks(seen: Tensor, queries: Tensor, keys: Tensor, windows: Iterable[int | None]) -> dict[int | None, Tensor]:
    """Return a mask for each window, bool (B, 1, T, S): the keys that each query sees.

    `seen` (B, S) is False for padding. `queries` (B, T) and `keys` (B, S) are positions.
    """
    gap = queries[:, :, None] - keys[:, None]  # (B, T, S)
    causal = (gap >= 0) & seen[:, None]
    return {window: (causal if window is None else causal & (gap < window))[:, None] for window in windows}


def choose(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator | None) -> Tensor:
    """Return one token id for each row of logits: (B, vocabulary) -> (B,).

    At temperature 0 this is the most likely token. Otherwise it is drawn from the smallest set of most likely tokens whose
    probabilities sum to `top_p` or more.
    """
    if temperature == 0:
        return logits.argmax(-1)
    chances, order = (logits / temperature).softmax(-1).sort(-1, descending=True)
    chances = chances.masked_fill(chances.cumsum(-1) - chances >= top_p, 0.0)
    drawn = torch.multinomial(chances, 1, generator=generator)
    return order.gather(1, drawn)[:, 0]
