"""Find which images each token reads by cross-attention, in packed samples.

Consecutive images without a token between them are a run. The text after a run reads all images of the run. If a prompt has a
token between two images, such as Idefics' `<fake_token_around_image>`, the token is text and ends the run.

B rows, T tokens, I images, V features of all images, W feature width, Q queries, H heads, G heads of keys, E head width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdata_train.model.attention import BLOCK, block_mask, flex


def latest_images(marks: Tensor, segment_ids: Tensor) -> Tensor:
    """Return for each token the number of the latest image in its sample, or -1 before the first image: (B, T) -> (B, T).

    `marks` is True at image tokens. Images are numbered in reading order over the whole batch. The latest image of an image
    token is the token's own image.
    """
    count = marks.flatten().cumsum(0).view_as(marks)  # images up to and including this token
    place = torch.arange(marks.shape[1], device=marks.device)
    begins = torch.ones_like(marks, dtype=torch.bool)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    start = torch.where(begins, place, 0).cummax(1).values  # where each token's segment begins
    before = (count - marks.to(count.dtype)).gather(1, start)  # images before the segment
    return torch.where((count > before) & (segment_ids > 0), count - 1, -1)


def first_of_runs(marks: Tensor, segment_ids: Tensor, latest: Tensor) -> Tensor:
    """Return for each token the number of the first image that it reads, or -1 if it reads none: (B, T) -> (B, T).

    A run is a sequence of consecutive image tokens in one sample. A token's latest image belongs to a run, and the token reads
    the images from the start of this run to its latest image. So text after a run reads the whole run, and an image token reads
    its own image and the earlier images of its run. An image token does not read later images. The images that a token reads
    never depend on later tokens, so truncation and generation do not change them.
    """
    opens = marks.clone()
    opens[:, 1:] &= ~marks[:, :-1] | (segment_ids[:, 1:] != segment_ids[:, :-1])
    place = torch.arange(marks.shape[1], device=marks.device)
    opened = torch.where(opens, place, 0).cummax(1).values  # where the latest run begins
    return torch.where(latest >= 0, latest.gather(1, opened), -1)


@dataclass(eq=False)
class Seen:
    """The features of all images of a batch, and which tokens read them."""

    features: Tensor  # (V, W)
    of_feature: Tensor  # (V,) number of the image of each feature
    latest: Tensor  # (B, T) last image that each token reads, or -1
    first: Tensor  # (B, T) first image that each token reads, or -1
    backend: str  # a backend of attention.py
    runs: list[tuple[int, int, int, int]] = field(default_factory=list)  # (start, end) of tokens, (start, end) of features
    mask: Any = None  # FlexAttention's BlockMask of the tokens of all rows and the features
    # keys and values of the features in each layer, which are computed once while tokens are generated; None: not kept
    kept: dict[nn.Module, tuple[Tensor, Tensor]] | None = None

    @staticmethod
    def of(features: Tensor, counts: list[int], latest: Tensor, first: Tensor, backend: str) -> Seen:
        """Return a `Seen` with the runs or the mask that the backend needs. `counts` has each image's number of features."""
        sizes = torch.tensor(counts, dtype=torch.int64, device=features.device)
        number = torch.arange(len(counts), device=features.device)
        of_feature = number.repeat_interleave(sizes, output_size=sum(counts))
        seen = Seen(features, of_feature, latest, first, backend)
        if backend == "segments":
            seen.runs = reading_runs(latest, first, counts)
        elif backend in ("flex", "varlen") and counts:
            seen.mask = reading_block_mask(latest.flatten(), of_feature, first.flatten())
        return seen

    def at(self, places: Tensor) -> Seen:
        """Return a `Seen` for one token of each text. Each of B rows has one or several texts, N in all.

        `places` (N,) holds the index of this token in its row, in the order of the rows. The result is also valid for the
        tokens that are generated later, because they read the same images as this token.
        """
        own = places.view(len(self.latest), -1)
        latest, first = (images.gather(1, own).view(-1, 1) for images in (self.latest, self.first))
        return Seen(self.features, self.of_feature, latest, first, self.backend, kept={})


def reading_runs(latest: Tensor, first: Tensor, counts: list[int]) -> list[tuple[int, int, int, int]]:
    """Return the runs of consecutive tokens that read the same images, in row-major order.

    A run is (start, end) of its tokens and (start, end) of the features that they read.
    """
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    images = torch.stack([first.flatten(), latest.flatten()], 1).cpu()
    cuts = [0, *(torch.nonzero((images[1:] != images[:-1]).any(1)).flatten() + 1).tolist(), len(images)]
    return [
        (start, end, starts[begin], starts[last + 1])
        for start, end, (begin, last) in zip(cuts[:-1], cuts[1:], images[cuts[:-1]].tolist(), strict=True)
        if last >= 0
    ]


def reading_block_mask(latest: Tensor, of_feature: Tensor, first: Tensor | None = None) -> Any:
    """Return FlexAttention's mask of tokens (Q,) and features (V,), built from the range of images in each block.

    A token reads the images from its number in `first` to its number in `latest`. `of_feature` has the number of each feature's
    image. Without `first`, each token reads only its latest image.
    """
    begins = latest if first is None else first

    def reads(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (begins[q] <= of_feature[k]) & (of_feature[k] <= latest[q])

    none = torch.iinfo(latest.dtype).max  # tokens that read no image must not widen a range
    low, high = _blocks(begins.where(begins >= 0, none), none).amin(1), _blocks(latest, -1).amax(1)
    least, most = _blocks(of_feature, none).amin(1), _blocks(of_feature, -1).amax(1)
    meets = (low[:, None] <= most) & (least <= high[:, None])
    return block_mask(meets[None], torch.zeros_like(meets)[None], reads, (len(latest), len(of_feature)))


def _blocks(values: Tensor, filler: int) -> Tensor:
    """Cut values (n,) into blocks of `BLOCK` values: (blocks, BLOCK). If the last block is shorter, `filler` completes it."""
    missing = -len(values) % BLOCK
    return torch.cat([values, values.new_full((missing,), filler)]).view(-1, BLOCK)


def cross_attend(seen: Seen, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the attention of tokens to features, (B T, H, E). It is 0 for tokens that read no image.

    `query` is (1, H, B T, E). `key` and `value` are (1, G, V, E). H / G query heads in a row read the same key head.
    """
    grouped = query.shape[1] != key.shape[1]
    if key.shape[2] == 0:  # zeros that depend on every weight, because all ranks must have gradients for the same weights
        out = query * 0 + key.sum() + value.sum()
    elif seen.backend == "segments":
        out = torch.zeros_like(query)
        for start, end, first, last in seen.runs:
            out[:, :, start:end] = functional.scaled_dot_product_attention(
                query[:, :, start:end], key[:, :, first:last], value[:, :, first:last], enable_gqa=grouped
            )
    elif seen.backend == "mask":
        begins, latest = seen.first.flatten()[:, None], seen.latest.flatten()[:, None]
        visible = (begins <= seen.of_feature) & (seen.of_feature <= latest)  # (B T, V)
        out = functional.scaled_dot_product_attention(query, key, value, visible, enable_gqa=grouped)
        out = torch.where(visible.any(1)[:, None], out, 0.0)
    else:
        out = flex(query.is_cuda)(query, key, value, block_mask=seen.mask, enable_gqa=grouped)
    return out[0].transpose(0, 1)
