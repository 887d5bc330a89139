"""Mixture of depths on image tokens: in some layers, only the best image tokens pass, and the others skip the layer.

Source: Raposo et al. 2024, Mixture-of-Depths, for image tokens as in Luo et al. 2024, gamma-MoD, and Zhang et al. 2024, p-MoD.
Each image keeps the same share of its tokens. So its choice does not depend on other images or on text after it, a packed
sample equals the sample alone, and generation equals training.
B rows, T tokens, V features of all images, K chosen image tokens, L passing tokens, M most passing tokens of a row, D width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from vlmdata_train.fusions import embedding_width
from vlmdata_train.fusions.tokens import InPlace
from vlmdata_train.model.attention import AttentionPlan, layer_windows, plan_attention
from vlmdata_train.model.encoder_facts import EncoderFacts
from vlmdata_train.model.repeated_blocks import blocks_of


@dataclass(eq=False)
class Candidates:
    """The tokens of a batch from which the layers choose. Tokens are rows of the flattened batch (B T).

    All layers share these tensors. They depend on the sizes of images, but not on the choice.
    """

    text: Tensor  # (B T - V,) tokens that always pass
    images: Tensor  # (V,) image tokens in reading order
    of_image: Tensor  # (V,) number of the image of each image token
    best: Tensor  # (K,) places of the chosen tokens among the image tokens sorted by image and then by score

    @staticmethod
    def of(marks: Tensor, counts: list[int], kept: list[int]) -> Candidates:
        """Return the candidates for a mask (B, T) of the image tokens.

        `counts` and `kept` hold the number of tokens of each image, and how many of them pass. The host knows these numbers, so
        that it does not wait for the device.
        """
        order = marks.flatten().byte().argsort(stable=True)
        text, images = order.split([len(order) - sum(counts), sum(counts)])
        starts = accumulate(counts, initial=0)
        best = [start + number for start, passing in zip(starts, kept, strict=False) for number in range(passing)]
        of_image = [image for image, count in enumerate(counts) for _ in range(count)]
        tensors = (text, images, *(torch.tensor(n, dtype=torch.int64).to(marks.device) for n in (of_image, best)))
        for tensor in tensors:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)  # so that a compiled layer is not compiled again for each batch
        return Candidates(*tensors)

    def any_rows(self) -> Tensor:
        """Return, in order, the rows (L,) of all text and of as many tokens of each image as pass, whichever these are."""
        return torch.cat([self.text, self.images[self.best]]).sort().values

    def choose(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows (L,) of the passing tokens, in order, and by how much the weight of a layer's update exceeds 1 (L,).

        `scores` (V,) are those of the image tokens. The weight of an image token is 1 + tanh(score), and that of text is 1.
        """
        order = scores.detach().argsort(descending=True, stable=True)
        order = order[self.of_image[order].argsort(stable=True)]
        chosen = order[self.best]
        rows, places = torch.cat([self.text, self.images[chosen]]).sort()
        excess = torch.cat([scores.new_zeros(len(self.text)), scores[chosen].tanh()])
        return rows, excess[places]


@dataclass(eq=False)
class Packed:
    """The arrangement of passing tokens in training: one row, in which the attention separates the segments of all rows."""

    candidates: Candidates
    plan: AttentionPlan

    @staticmethod
    def of(candidates: Candidates, segment_ids: Tensor, backend: str) -> Packed:
        """Return the arrangement for segment ids (B, T)."""
        first = torch.arange(len(segment_ids), device=segment_ids.device)[:, None] * (segment_ids.shape[1] + 1)
        unique = torch.where(segment_ids > 0, segment_ids + first, 0).to(segment_ids.dtype)  # rows share no segment
        return Packed(candidates, plan_attention(unique.flatten()[candidates.any_rows()][None], backend=backend))

    def arrange(self, values: Tensor) -> Tensor:
        """Return the values of passing tokens as the layer's input: (L, ...) -> (1, L, ...)."""
        return values[None]

    def collect(self, values: Tensor) -> Tensor:
        """Return the values of the layer's output for each passing token: (1, L, D) -> (L, D)."""
        return values[0]


@dataclass(eq=False)
class Prompt:
    """The arrangement of passing tokens while a prompt is read: a row for each row, because each row has its own cache.

    A row with fewer passing tokens repeats its last one, which is masked.
    """

    candidates: Candidates
    plan: AttentionPlan
    table: Tensor  # (B, M) place among the passing tokens
    places: Tensor  # (L,) place of each passing token in the flattened table
    seen: Tensor  # (B, M) tokens that are neither padding nor repeated
    length: int  # T

    @staticmethod
    def of(candidates: Candidates, segment_ids: Tensor) -> Prompt:
        """Return the arrangement for segment ids (B, T)."""
        rows, length = candidates.any_rows(), segment_ids.shape[1]
        lengths = torch.bincount(rows // length, minlength=len(segment_ids))  # (B,)
        place = torch.arange(int(lengths.max()), device=rows.device)
        is_own = place < lengths[:, None]  # (B, M)
        table = (lengths.cumsum(0) - lengths)[:, None] + torch.minimum(place, lengths[:, None] - 1)
        seen = is_own & (segment_ids.flatten()[rows] > 0)[table]
        mask = (place <= place[:, None]) & seen[:, None]  # (B, M, M)
        plan = AttentionPlan("mask", masks={None: mask[:, None]})
        return Prompt(candidates, plan, table, is_own.flatten().nonzero()[:, 0], seen, length)

    def arrange(self, values: Tensor) -> Tensor:
        """Return the values of passing tokens as the layer's input: (L, ...) -> (B, M, ...)."""
        return values[self.table]

    def collect(self, values: Tensor) -> Tensor:
        """Return the values of the layer's output for each passing token: (B, M, D) -> (L, D)."""
        return values.flatten(0, 1)[self.places]

    def at(self, places: Tensor) -> Generated:
        """Return what the layers need to process generated tokens, which always pass. Each row has one or several texts (N)."""
        return Generated(self.seen.repeat_interleave(len(places) // len(self.seen), 0), self.length)


@dataclass(eq=False)
class Generated:
    """The tokens of the prompt whose keys are in the caches of the layers that other tokens skipped."""

    seen: Tensor  # (N, M)
    length: int  # number of tokens of the prompt whose keys are in the caches of the other layers

    def plan(self, packing: AttentionPlan) -> AttentionPlan:
        """Return the attention of a generated token to the keys in these caches. `packing` is that of the other layers."""
        later = packing.masks[None][..., self.length :]  # (N, 1, 1, S - T)
        return AttentionPlan("mask", masks={None: torch.cat([self.seen[:, None, None], later], -1)})


class Router(nn.Module):
    """Scores image tokens by a linear layer: (V, D) -> (V,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)
        nn.init.normal_(self.score.weight, std=1e-3)  # so that training starts near the plain layer

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the scores."""
        return self.score(hidden)[:, 0]


class Depths(InPlace):
    """Replaces image tokens by features, and lets some of them skip some layers. Its weights are those of the routers."""

    def __init__(self, language: nn.Module, width: int, image_token_id: int, part: MixtureOfDepths) -> None:
        super().__init__(image_token_id, prefix=False)
        self.capacity, blocks = part.capacity, blocks_of(language)
        self.blocks = tuple(blocks[part.first :: part.every])  # not a ModuleList, because they are parts of the language model
        if not self.blocks:
            raise ValueError(f"mixture_of_depths: first must be less than the number of layers, {len(blocks)}")
        if layer_windows(language.config) != {None}:
            raise ValueError(
                "mixture_of_depths does not support language models with sliding windows, because a window over the passing"
                " tokens is longer than one over all tokens"
            )
        self.routers = nn.ModuleList(Router(width) for _ in self.blocks)
        for block, router in zip(self.blocks, self.routers, strict=True):
            skip = _Skip(router)
            block.register_forward_pre_hook(skip.shorten, with_kwargs=True)
            block.register_forward_hook(skip.restore)

    def forward(
        self, ids: Tensor, embeddings: Tensor, features: Tensor, counts: list[int], segment_ids: Tensor, packing: AttentionPlan
    ) -> Tensor:
        """Replace the embeddings of image tokens by features, and store in `packing` what the layers need to choose tokens."""
        embedded = super().forward(ids, embeddings, features, counts, segment_ids, packing)
        candidates = Candidates.of(ids == self.image_token_id, counts, self._kept(counts))
        if packing.backend == "mask":
            packing.images = Prompt.of(candidates, segment_ids)
        else:
            packing.images = Packed.of(candidates, segment_ids, packing.backend)
        return embedded

    def weights_of_tokens(self) -> dict[str, list[nn.Parameter]]:
        """Return the weights that do not process all tokens: the routers, and the layers that some image tokens skip."""
        return {"images": list(self.routers.parameters()), "chosen": [p for block in self.blocks for p in block.parameters()]}

    def tokens_of_weights(self, tokens: int, counts: Sequence[int]) -> dict[str, int]:
        """Return how many tokens the weights of each kind process.

        `tokens` is the number of all tokens, and `counts` holds the number of tokens of each image.
        """
        return {"images": sum(counts), "chosen": tokens - sum(counts) + sum(self._kept(counts))}

    def _kept(self, counts: Sequence[int]) -> list[int]:
        """Return how many tokens of each image pass: `capacity` times their number, rounded up."""
        return [math.ceil(round(self.capacity * count, 6)) for count in counts]


class _Skip:
    """Two hooks of a layer. The layer gets only the passing tokens, and the others keep their hidden states."""

    def __init__(self, router: nn.Module) -> None:
        self.router = router
        # between the two hooks: the arrangement, all hidden states (B, T, D), the passing rows (L,), their excess (L,)
        self.state: tuple[Packed | Prompt, Tensor, Tensor, Tensor] | None = None

    def shorten(self, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Replace the layer's arguments by those of the passing tokens. This is a forward pre-hook."""
        packing = kwargs["packing"]
        images = packing.images
        if isinstance(images, Generated):
            return args, {**kwargs, "packing": images.plan(packing)}
        hidden = args[0] if args else kwargs["hidden_states"]
        flat = hidden.flatten(0, 1)
        candidates = images.candidates
        rows, excess = candidates.choose(self.router(flat[candidates.images]))
        self.state = (images, hidden, rows, excess)
        kwargs = {name: _shortened(block, name, value, images, rows) for name, value in kwargs.items()}
        kwargs["packing"] = images.plan
        short = images.arrange(flat[rows])
        return (short, *args[1:]) if args else (), kwargs if args else {**kwargs, "hidden_states": short}

    def restore(self, block: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Return the hidden states of all tokens, (B, T, D). The update of image tokens is weighted. This is a forward hook."""
        if self.state is None:
            return output
        images, hidden, rows, excess = self.state
        self.state = None
        flat, passed = hidden.flatten(0, 1), images.collect(output)
        passed = passed + excess[:, None] * (passed - flat[rows])  # exactly the layer's output for text
        return flat.index_copy(0, rows, passed.to(flat.dtype)).view_as(hidden)


def _shortened(block: nn.Module, name: str, value: Any, images: Packed | Prompt, rows: Tensor) -> Any:
    """Return a keyword argument of a layer for the passing tokens.

    Raises ValueError for a tensor of which the fusion does not know how it depends on the tokens.
    """
    if name == "position_embeddings" and value is not None:  # cosines and sines of all tokens, (B, T, E) each
        return tuple(images.arrange(one.flatten(0, 1)[rows]) for one in value)
    if name == "position_ids" and value is not None:  # (B, T), or (axes, B, T)
        axes = value.flatten(-2).reshape(-1, value.shape[-2] * value.shape[-1])
        short = torch.stack([images.arrange(axis[rows]) for axis in axes])
        return short if value.ndim == 3 else short[0]
    if isinstance(value, Tensor) and name != "hidden_states":
        raise ValueError(
            f"mixture_of_depths: {type(block).__name__} gets the tensor `{name}`, which the fusion does not support"
        )
    return value


@dataclass(frozen=True)
class MixtureOfDepths:
    """Fusion `tokens` in which a part of each image's tokens skips some layers. Text always passes, and positions stay.

    A router, a linear layer from the hidden state to a score, chooses the tokens with the highest scores. The layer's update of
    an image token is multiplied by 1 + tanh(score), so that the router learns. Raposo et al. multiply by the score itself.
    """

    capacity: float = 0.5  # share of each image's tokens that passes, rounded up to whole tokens; gamma-MoD's code: 0.5
    every: int = 2  # layers of the language model for each layer that tokens may skip; Raposo et al.: 2
    first: int = 1  # number of layers before the first one that tokens may skip

    def __post_init__(self) -> None:
        if not 0 <= self.capacity <= 1:
            raise ValueError(f"capacity must be between 0 and 1, not {self.capacity}")
        if self.every < 1 or self.first < 0:
            raise ValueError(f"every must be 1 or more and first 0 or more, not {self.every} and {self.first}")

    def positions_of(self, tokens: int) -> int:
        """Return `tokens`, because the text has one image token for each feature."""
        return tokens

    def reads(self, facts: EncoderFacts, language_width: int) -> int:
        """Return the language model's width, because the fusion reads only the encoder's final features.

        Raises ValueError if the encoder also returns features of earlier layers.
        """
        return embedding_width(facts, language_width)

    def build(self, language: nn.Module, width: int, image_token_id: int) -> nn.Module:
        """Return the routers. Hooks run them in the language model.

        Raises ValueError if the language model has sliding windows or too few layers.
        """
        return Depths(language, width, image_token_id, self)
