"""Attention within packed samples, for any Hugging Face language model. No sample sees another sample in its row.

This module registers an attention implementation with transformers. In every layer, the model passes its queries, keys
and values to `packed_attention`. The keyword `packing` is an `AttentionPlan`, which is made once per batch and says which
tokens may see which.

B rows, H heads, T queries, S keys, E head width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, PreTrainedModel

from vlmdata_train.model.placeholders import stand_ins

NAME = "vlmdata_packed"  # not registered in transformers' mask interface, so that transformers builds no mask
BLOCK = 128  # FlexAttention's default block of queries and of keys
BACKENDS = ("segments", "varlen", "flex")


@dataclass(eq=False)
class AttentionPlan:
    """Says which tokens each token of a batch may see.

    `masks` has a mask for each attention window of the model's layers. The window None is the whole past.
    """

    backend: str  # segments, varlen, flex, or mask (while generating)
    runs: list[tuple[int, int, int]] = field(default_factory=list)  # (row, start, end) of each segment, on the host
    masks: dict[int | None, Any] = field(default_factory=dict)  # window -> BlockMask, or bool (B, 1, T, S)
    bounds: Tensor | None = None  # (segments + 1,) int32: starts of the segments in the flattened batch, for varlen
    longest: int = 0  # tokens of the longest segment, for varlen
    images: Any = None  # set by the fusion and read by its layers
    two_way: Tensor | None = None  # (B, T) bool: tokens that see each other within their sample, whatever the window


def plan_attention(
    segment_ids: Tensor, *, backend: str = "auto", windows: Iterable[int | None] = (None,), two_way: Tensor | None = None
) -> AttentionPlan:
    """Return the attention plan for segment ids (B, T), where 0 is padding.

    The backend `auto` is FlexAttention on a GPU, and SDPA for each segment on a CPU. `two_way`, bool (B, T), marks tokens that
    see each other within their sample, also later ones and those beyond a layer's window, such as the image and the prompt in
    PaliGemma. Raises ValueError for an unknown backend, or a backend that does not support such tokens.
    """
    if backend == "auto":
        backend = "flex" if segment_ids.is_cuda else "segments"
    if backend not in BACKENDS:
        raise ValueError(f"attention: there is no backend '{backend}'. The backends are auto, {', '.join(BACKENDS)}")
    if two_way is not None and backend == "varlen":
        raise ValueError("attention: this fusion lets tokens attend to later ones, which the backend `varlen` does not support")
    if backend == "flex":
        return AttentionPlan(
            backend, masks={window: segment_block_mask(segment_ids, window, two_way) for window in set(windows)}
        )
    runs = segment_runs(segment_ids)
    if backend == "segments":
        return AttentionPlan(backend, runs=[run for run in runs if segment_ids[run[0], run[1]] > 0], two_way=two_way)
    starts = [row * segment_ids.shape[1] + start for row, start, _ in runs]
    bounds = torch.tensor([*starts, segment_ids.numel()], dtype=torch.int32, device=segment_ids.device)
    return AttentionPlan(backend, runs=runs, bounds=bounds, longest=max(end - start for _, start, end in runs))


def segment_runs(segment_ids: Tensor) -> list[tuple[int, int, int]]:
    """Return (row, start, end) of every run of equal segment ids, including padding, in row-major order."""
    runs = []
    for row, ids in enumerate(segment_ids.cpu()):
        cuts = (torch.nonzero(ids[1:] != ids[:-1]).flatten() + 1).tolist()
        runs += [(row, start, end) for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    return runs


def segment_block_mask(segment_ids: Tensor, window: int | None = None, two_way: Tensor | None = None) -> BlockMask:
    """Return FlexAttention's mask, built from the range of segment ids in each block.

    This needs no (T, T) matrix, no compilation and no wait for the device. A pair of blocks is skipped if their ranges of
    segment ids do not overlap. A pair is full if both blocks are in one segment and the keys precede the queries. The
    elements of a full pair are not tested. Padding attends causally to itself, so that no softmax is empty.
    """
    rows, length = segment_ids.shape

    def visible(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        past = q >= k if window is None else (q >= k) & (q - k < window)
        past = past if two_way is None else past | (two_way[b, q] & two_way[b, k])
        return (segment_ids[b, q] == segment_ids[b, k]) & past

    blocks = -(-length // BLOCK)
    last = segment_ids[:, -1:].expand(rows, blocks * BLOCK - length)
    tiles = torch.cat([segment_ids, last], 1).view(rows, blocks, BLOCK)
    low, high = tiles.amin(2), tiles.amax(2)  # (B, blocks)
    number = torch.arange(blocks, device=segment_ids.device)
    meets = (low[:, :, None] <= high[:, None]) & (low[:, None] <= high[:, :, None])
    past = number[:, None] >= number
    full = (low == high)[:, :, None] & (low == high)[:, None] & (low[:, :, None] == low[:, None])
    full &= number[:, None] > number
    if window is not None:
        gap = (number[:, None] - number) * BLOCK  # from the first key to the first query of the pair
        past = past & (gap < window + BLOCK)
        full &= gap + BLOCK <= window
    if two_way is not None:
        has_some = functional.pad(two_way, (0, blocks * BLOCK - length)).view(rows, blocks, BLOCK).any(2)
        past = past | (has_some[:, :, None] & has_some[:, None])
    meets &= past
    if length % BLOCK:  # the last block extends past the row: test its elements
        full[:, -1] = False
    return block_mask(meets & ~full, meets & full, visible, (length, length))


def block_mask(
    tested: Tensor, full: Tensor, visible: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], lengths: tuple[int, int]
) -> BlockMask:
    """Return FlexAttention's mask from two sets of block pairs (query block, key block).

    Each set is bool (B, Q, K), for Q query blocks and K key blocks. In the pairs of `full`, each query sees each key. In the
    pairs of `tested`, `visible` says for each query and key whether the query sees the key. `lengths` is (number of queries,
    number of keys).
    """
    counts, order = _block_list(tested)
    full_counts, full_order = _block_list(full)
    return BlockMask.from_kv_blocks(
        counts, order, full_counts, full_order, BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=lengths
    )


def _block_list(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return block pairs, bool (B, Q, K), as the two tensors that FlexAttention expects.

    The first, (B, 1, Q), holds the number of chosen key blocks of each query block. The second, (B, 1, Q, K), holds the indexes
    of all key blocks, with the chosen blocks first.
    """
    order = pairs.int().argsort(dim=2, descending=True, stable=True)
    return pairs.sum(2, dtype=torch.int32)[:, None], order.int()[:, None]


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    packing: AttentionPlan | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return the attention within segments, (B, T, H, E), and None. Transformers calls this function in every layer.

    `query` is (B, H, T, E). `key` and `value` are (B, H_kv, S, E). Raises ValueError for a model that passes no `packing`, or
    that has attention sinks or dropout.
    """
    if packing is None:
        raise ValueError(f"{type(module).__name__} does not receive `packing` from its model, so it cannot pack samples")
    if s_aux is not None or dropout:
        feature = "attention sinks" if s_aux is not None else f"attention dropout ({dropout:g}; set it to 0 in `config`)"
        raise ValueError(f"{type(module).__name__} has {feature}, which packed attention does not support")
    attend = {"segments": _by_segment, "varlen": _by_varlen, "flex": _by_flex, "mask": _by_mask}[packing.backend]
    scores = Scores(scaling, sliding_window, softcap)
    return attend(packing, query, key, value, scores).transpose(1, 2), None


@dataclass(frozen=True)
class Scores:
    """How a layer scales its attention scores, limits them to a window and caps them."""

    scale: float | None  # None: 1 / sqrt(E)
    window: int | None  # how many tokens back a query sees, itself included; None: all
    cap: float | None  # Gemma 2: scores become cap * tanh(scores / cap); None: no cap


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scores: Scores) -> Tensor:
    """Return the attention with a boolean mask that broadcasts to (B, H, T, S).

    Without a mask the attention is causal.
    """
    grouped = query.shape[1] != key.shape[1]
    if scores.cap is None:
        return functional.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None, scale=scores.scale, enable_gqa=grouped
        )
    if grouped:
        key, value = (states.repeat_interleave(query.shape[1] // states.shape[1], dim=1) for states in (key, value))
    if mask is None:
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
    scale = query.shape[-1] ** -0.5 if scores.scale is None else scores.scale
    capped = scores.cap * torch.tanh(query @ key.transpose(2, 3) * (scale / scores.cap))  # SDPA cannot cap scores
    return capped.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32).to(value.dtype) @ value


def _by_segment(packing: AttentionPlan, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    out = torch.zeros_like(query[..., : value.shape[-1]])
    window = scores.window
    for row, start, end in packing.runs:
        place = (slice(row, row + 1), slice(None), slice(start, end))
        band, own = None, None if packing.two_way is None else packing.two_way[row, start:end]
        if own is not None or (window is not None and end - start > window):
            band = torch.ones(end - start, end - start, dtype=torch.bool, device=query.device).tril()
            band = band if window is None else band.triu(1 - window)
            band = band if own is None else band | (own[:, None] & own)
        out[place] = _attend(query[place], key[place], value[place], band, scores)
    return out


def _by_varlen(packing: AttentionPlan, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    if scores.cap is not None:
        raise ValueError(
            "attention: this language model caps its scores, which `varlen` does not support. Use `flex` or `segments`."
        )
    from torch.nn.attention.varlen import varlen_attn  # FlashAttention's kernels: CUDA, 16-bit only

    assert packing.bounds is not None
    grouped: dict[str, Any] = {"enable_gqa": query.shape[1] != key.shape[1]}
    if "enable_gqa" not in inspect.signature(varlen_attn).parameters:  # torch 2.11 needs as many key heads as query heads
        key, value = (states.repeat_interleave(query.shape[1] // states.shape[1], dim=1) for states in (key, value))
        grouped = {}
    q, k, v = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))  # (B T, H, E)
    out = varlen_attn(
        q, k, v, packing.bounds, packing.bounds, packing.longest, packing.longest, scale=scores.scale,
        window_size=(-1 if scores.window is None else scores.window - 1, 0), **grouped,
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return out.unflatten(0, (query.shape[0], query.shape[2])).transpose(1, 2)


def _by_flex(packing: AttentionPlan, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    cap = scores.cap

    def capped(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        assert cap is not None
        return cap * torch.tanh(score / cap)

    return flex(query.is_cuda)(
        query, key, value, score_mod=None if cap is None else capped, block_mask=packing.masks[scores.window],
        scale=scores.scale, enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip


def _by_mask(packing: AttentionPlan, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    return _attend(query, key, value, packing.masks[scores.window], scores)


_compiled: list[Callable[..., Tensor]] = []


def flex(compiled: bool) -> Callable[..., Tensor]:
    """Return FlexAttention, compiled or plain.

    On a GPU it must be compiled, because its kernel exists only in compiled form. Tests on a CPU use the plain form.
    """
    if not compiled or torch.compiler.is_compiling():
        return flex_attention
    if not _compiled:
        _compiled.append(torch.compile(flex_attention))
    return _compiled[0]


def use_packed_attention(language: PreTrainedModel) -> None:
    """Switch a Hugging Face language model to `packed_attention`.

    Raises ValueError if transformers cannot replace the model's attention implementation.
    """
    language.set_attn_implementation(NAME)
    if language.config._attn_implementation != NAME:
        raise ValueError(
            f"{type(language).__name__} does not allow a replacement of its attention implementation, so it cannot pack samples"
        )


@torch.no_grad()
def check_packing(language: Any) -> None:
    """Run two short samples in one row, and raise ValueError if the second depends on the first.

    Convolutions and state-space layers carry values from one sample to the next without attention. Without this check,
    such a model would be trained with these values, and no error would be raised. Placeholders get random values for the run.
    """
    if language.base_model is language:
        raise ValueError(f"{type(language).__name__} has no decoder separate from its output layer, so it cannot pack samples")
    training = language.training
    language.eval()
    segment_ids = torch.tensor([[1, 1, 1, 2, 2, 2]])
    decoder, embedding = language.base_model, language.get_input_embeddings()
    values, table = stand_ins(decoder), stand_ins(embedding)
    device = next(iter(table.values()), embedding.weight).device
    outputs = []
    for first in (1, 4):  # two different first samples before the same second sample
        ids = torch.tensor([[first, first + 1, first + 2, 7, 8, 9]], device=device)
        outputs.append(
            functional_call(decoder, values, (), {
                "inputs_embeds": functional_call(embedding, table, (ids,)),
                "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2]], device=device),
                "packing": plan_attention(segment_ids, backend="segments"), "use_cache": False,
            }).last_hidden_state[:, 3:].float()
        )  # fmt: skip
    language.train(training)
    leak = float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())
    if leak > 16 * torch.finfo(embedding.weight.dtype).eps:  # rounding depends on the other tokens of an expert's batch
        raise ValueError(f"{type(language).__name__} lets samples in one row see each other (outputs change by {leak:.1g})")


def layer_windows(config: Any) -> set[int | None]:
    """Return the attention windows of a language model's layers. The window None is the whole past."""
    window = getattr(config, "sliding_window", None)
    return {None, window} if window else {None}


AttentionInterface.register(NAME, packed_attention)
