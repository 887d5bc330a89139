"""Encode the images and videos of a batch: tower, abstractor, and the arrangement of tiles.

P tiles of all images, M tokens of a tile, N patches, C tower width, V features of all images, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vlmdata_train.model.batch import Batch
from vlmdata_train.model.pixels import normalise
from vlmdata_train.model.surroundings import Surroundings


def encode_images(model: Any, batch: Batch) -> tuple[Tensor, list[int]]:
    """Return the features (V, D) of all images and videos in reading order, and how many features each of them has.

    In training, a tile is encoded even for a batch without images, because every rank must run every part in each step.
    Otherwise the other ranks would wait forever. The features of this tile are not returned.
    """
    splits = batch.tile_counts.tolist()
    if sum(splits) != len(batch.pixels):
        raise ValueError(f"tile_counts sum to {sum(splits)}, but there are {len(batch.pixels)} tiles")
    if not splits:
        return _no_features(model), []
    grids = _tile_grids(model, batch)
    if _reads_surroundings(model):
        patches = _by_size(batch.pixels, lambda pixels: encode_tower(model, pixels, grids))
        images = model.abstractor(list(patches), surroundings(model, batch))
        return torch.cat(images), [len(image) for image in images]
    # list of (M, D), or (P, M, D)
    per_tile = _by_size(batch.pixels, lambda pixels: _abstracted(model, encode_tower(model, pixels, grids), pixels))
    if model.arrangement is None and isinstance(per_tile, Tensor) and not batch.is_video.any():
        return per_tile.flatten(0, 1), [count * per_tile.shape[1] for count in splits]
    images, start = [], 0
    for count, (height, width), is_video in zip(splits, batch.image_sizes.tolist(), batch.is_video.tolist(), strict=True):
        own = per_tile[start : start + count]
        start += count
        if is_video:
            images.append(model.plan.video.arrange(list(own), model.arrangement))
        elif model.arrangement is None:
            images.append(torch.cat(list(own)))
        else:
            images.append(model.arrangement(own, width=width, height=height))
    if model.arrangement is not None and batch.is_video.all():  # its weights need gradients (of zeros)
        images[0] = images[0] + 0 * sum(weight.sum() for weight in model.arrangement.parameters())
    return torch.cat(images), [len(image) for image in images]


def surroundings(model: Any, batch: Batch) -> Surroundings:
    """Return what an abstractor may read besides each tile of a batch."""
    device = batch.input_ids.device
    counts = batch.tile_counts
    of_image = torch.arange(len(counts)).repeat_interleave(counts)
    return Surroundings(
        of_image.to(device), batch.of_sample[of_image].to(device), batch.times.to(device), batch.questions.to(device),
        model.language.get_input_embeddings(), list(zip(counts.tolist(), batch.is_video.tolist(), strict=True)),
    )  # fmt: skip


def _reads_surroundings(model: Any) -> bool:
    return bool(getattr(model.abstractor, "reads_surroundings", False))


def encode_tower(model: Any, pixels: Tensor, grids: list[tuple[int, int]] | None) -> Tensor:
    """Return the tower's features (P, N, C) of tiles of one size, uint8 (P, 3 or more, H, W).

    For a tower that reads all tiles of an image at once, `grids` has the (rows, columns) of tiles of each image.
    """
    facts, dtype = model.plan.facts, model.language.get_input_embeddings().weight.dtype
    pixels = normalise(pixels, facts.mean, facts.std, dtype)
    return model.encoder(pixels) if grids is None else model.encoder(pixels, grids)


def _abstracted(model: Any, patches: Tensor, pixels: Tensor) -> Tensor:
    """Return the abstractor's features (P, M, D) of patches (P, N, C). `pixels` (P, 3, H, W) has the tiles' size."""
    if getattr(model.abstractor, "takes_grid", False):
        return model.abstractor(patches, grid=model.plan.facts.grid(*pixels.shape[-2:]))
    return model.abstractor(patches)


def _tile_grids(model: Any, batch: Batch) -> list[tuple[int, int]] | None:
    """Return the (rows, columns) of tiles of each image, for a tower that reads whole images. A video frame is one tile."""
    if not model.plan.facts.tile_grids:
        return None
    images = zip(batch.tile_counts.tolist(), batch.image_sizes.tolist(), batch.is_video.tolist(), strict=True)
    grids = []
    for count, (height, width), is_video in images:
        grids += [(1, 1)] * count if is_video else [model.plan.preprocessing.tile_grid(width, height, model.plan.facts)]
    return grids


def _by_size(pixels: Tensor | list[Tensor], encode: Callable[[Tensor], Tensor]) -> Tensor | list[Tensor]:
    """Return the features of each tile, in order, or one tensor if all tiles have one size.

    `encode` is called once for all tiles of one size.
    """
    if isinstance(pixels, Tensor):
        return encode(pixels)
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, tile in enumerate(pixels):
        groups.setdefault(tuple(tile.shape), []).append(number)
    features: dict[int, Tensor] = {}
    for numbers in groups.values():
        features.update(zip(numbers, encode(torch.stack([pixels[n] for n in numbers])), strict=True))
    if len(groups) == 1:
        return torch.stack([features[number] for number in range(len(pixels))])
    return [features[number] for number in range(len(pixels))]


def _no_features(model: Any) -> Tensor:
    """Return an empty tensor of features, (0, D).

    In training it depends on the weights of the tower, of the abstractor and of the module that arranges tiles, so that all
    of these weights get gradients.
    """
    facts, embeddings = model.plan.facts, model.language.get_input_embeddings()
    side, device = facts.image_size, embeddings.weight.device
    if not (model.training and torch.is_grad_enabled()):
        return torch.zeros(0, model.feature_width, device=device)
    grids = [model.plan.preprocessing.tile_grid(side, side, facts)] if facts.tile_grids else None
    patches = encode_tower(model, torch.zeros(1, 3, side, side, device=device), grids)
    if _reads_surroundings(model):
        (tile,) = model.abstractor([patches[0]], Surroundings.of_one_tile(device, embeddings))
        return tile[:0]
    tile = _abstracted(model, patches, torch.empty(0, 3, side, side))
    if model.arrangement is not None:
        tiles = tile.expand(model.plan.preprocessing.tiles_of(side, side, facts), -1, -1)
        tile = model.arrangement(tiles, width=side, height=side)
    return tile.flatten(0, -2)[:0]
