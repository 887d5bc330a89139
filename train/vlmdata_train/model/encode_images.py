"""Encode the images and videos of a batch: tower, abstractor, and the arrangement of tiles.

P tiles of all images, M tokens of a tile or picture, N patches, C tower width, V features of all images, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vlmdata_train.model.batch import Batch
from vlmdata_train.model.encoder_facts import Grid
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
    splits = [count // model.plan.copies for count in splits]  # the tiles for each tower make one sequence of features
    grids = _tile_grids(model, batch)
    if _reads_surroundings(model):
        patches = _of_tiles(model, batch, grids, lambda patches, pixels: patches)
        made = model.abstractor(list(patches), surroundings(model, batch))
        if not _returns_tiles(model):
            return torch.cat(made), [len(image) for image in made]
        per_tile = torch.stack(made) if len({tile.shape for tile in made}) == 1 else made
    elif joins_patches(model.arrangement):
        images = _joined(model, batch, splits, _of_tiles(model, batch, grids, lambda patches, pixels: patches))
        return torch.cat(images), [len(image) for image in images]
    else:  # list of (M, D), or (P, M, D)
        per_tile = _of_tiles(model, batch, grids, partial(_abstracted, model))
    if model.arrangement is None and isinstance(per_tile, Tensor) and not batch.is_video.any():
        return per_tile.flatten(0, 1), [count * per_tile.shape[1] for count in splits]
    images = []
    for tiles, height, width, is_video in _images_of(batch, splits):
        own = per_tile[tiles]
        if is_video:
            images.append(model.plan.video.arrange(list(own), model.arrangement))
        elif model.arrangement is None:
            images.append(torch.cat(list(own)))
        else:
            images.append(model.arrangement(own, width=width, height=height))
    if model.arrangement is not None and batch.is_video.all():  # its weights need gradients (of zeros)
        images[0] = images[0] + 0 * sum(weight.sum() for weight in model.arrangement.parameters())
    return torch.cat(images), [len(image) for image in images]


def joins_patches(arrangement: Any) -> bool:
    """Return whether a preprocessing's module joins the patches of an image's tiles before the abstractor."""
    return bool(getattr(arrangement, "joins_patches", False))


def _images_of(batch: Batch, splits: list[int]) -> Iterator[tuple[slice, int, int, bool]]:
    """Yield the range of tiles, the original height and width, and whether it is a video, of each image in reading order.

    `splits` holds the number of tiles of each image.
    """
    start = 0
    for count, (height, width), is_video in zip(splits, batch.image_sizes.tolist(), batch.is_video.tolist(), strict=True):
        yield slice(start, start + count), height, width, is_video
        start += count


def _joined(model: Any, batch: Batch, splits: list[int], patches: Tensor | list[Tensor]) -> list[Tensor]:
    """Return the features (M, D) of each image from its tiles' patches, (N, C) each, joined before the abstractor.

    A frame of a video is one tile, whose patches are not joined with others.
    """
    pictures: list[tuple[Tensor, Grid]] = []
    counts = []
    for tiles, height, width, is_video in _images_of(batch, splits):
        if is_video:
            frames = zip(patches[tiles], batch.pixels[tiles], strict=True)
            own = [(frame, model.plan.facts.grid(*pixels.shape[-2:])) for frame, pixels in frames]
        else:
            own = model.arrangement(patches[tiles], width=width, height=height)
        pictures += own
        counts.append(len(own))
    features = iter(_of_pictures(model, pictures))
    images = []
    for count, is_video in zip(counts, batch.is_video.tolist(), strict=True):
        made = [next(features) for _ in range(count)]
        images.append(model.plan.video.arrange(made, None) if is_video else torch.cat(made))
    return images


def _of_pictures(model: Any, pictures: Sequence[tuple[Tensor, Grid]]) -> list[Tensor]:
    """Return the abstractor's features (M, D) of each picture, which is patches (N, C) and their grid."""
    grids = [grid for _, grid in pictures]
    return _in_groups([patches for patches, _ in pictures], grids, lambda patches, grid: on_grid(model, patches, grid))


def surroundings(model: Any, batch: Batch) -> Surroundings:
    """Return what an abstractor may read besides each tile of a batch."""
    device = batch.input_ids.device
    counts = batch.tile_counts // model.plan.copies
    of_image = torch.arange(len(counts)).repeat_interleave(counts)
    times = batch.times[:: model.plan.copies]
    return Surroundings(
        of_image.to(device), batch.of_sample[of_image].to(device), times.to(device), batch.questions.to(device),
        model.language.get_input_embeddings(), list(zip(counts.tolist(), batch.is_video.tolist(), strict=True)),
    )  # fmt: skip


def _reads_surroundings(model: Any) -> bool:
    return bool(getattr(model.abstractor, "reads_surroundings", False))


def _returns_tiles(model: Any) -> bool:
    return bool(getattr(model.abstractor, "returns_tiles", False))


def _of_tiles(
    model: Any, batch: Batch, grids: list[tuple[int, int]] | None, finish: Callable[[Tensor, Tensor], Tensor]
) -> Tensor | list[Tensor]:
    """Return what `finish` makes of the tower's features (P, N, C) and the pixels (P, 3, H, W), for each tile in order.

    `finish` is called for all tiles of one size. If each tower has its own tiles, it gets the pixels of the first tower.
    """
    copies = model.plan.copies
    if copies == 1:
        return _by_size(batch.pixels, lambda pixels: finish(encode_tower(model, pixels, grids), pixels))
    pixels = [torch.stack(list(batch.pixels[number::copies])) for number in range(copies)]
    return finish(encode_tower(model, pixels, grids), pixels[0])


def encode_tower(model: Any, pixels: Tensor | list[Tensor], grids: list[tuple[int, int]] | None) -> Tensor:
    """Return the tower's features (P, N, C) of tiles of one size, uint8 (P, 3 or more, H, W), or of such tiles for each tower.

    For a tower that reads all tiles of an image at once, `grids` has the (rows, columns) of tiles of each image.
    """
    facts, dtype = model.plan.facts, model.language.get_input_embeddings().weight.dtype
    if isinstance(pixels, list):
        towers = zip(pixels, facts.towers, strict=True)
        return model.encoder([normalise(own, tower.mean, tower.std, dtype) for own, tower in towers])
    pixels = normalise(pixels, facts.mean, facts.std, dtype)
    return model.encoder(pixels) if grids is None else model.encoder(pixels, grids)


def _abstracted(model: Any, patches: Tensor, pixels: Tensor) -> Tensor:
    """Return the abstractor's features (P, M, D) of patches (P, N, C). `pixels` (P, 3, H, W) has the tiles' size."""
    return on_grid(model, patches, model.plan.facts.grid(*pixels.shape[-2:]))


def on_grid(model: Any, patches: Tensor, grid: Grid) -> Tensor:
    """Return the abstractor's features (P, M, D) of patches (P, N, C), which form this grid."""
    if getattr(model.abstractor, "takes_grid", False):
        return model.abstractor(patches, grid=grid)
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
    features = _in_groups(pixels, [tuple(tile.shape) for tile in pixels], lambda tiles, _: encode(tiles))
    return torch.stack(features) if len({tile.shape for tile in pixels}) == 1 else features


def _in_groups(items: Sequence[Tensor], keys: Sequence[Any], encode: Callable[[Tensor, Any], Tensor]) -> list[Tensor]:
    """Return the features of each item, in order. `encode` is called once for all items with the same key."""
    groups: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    features: dict[int, Tensor] = {}
    for key, numbers in groups.items():
        features.update(zip(numbers, encode(torch.stack([items[n] for n in numbers]), key), strict=True))
    return [features[number] for number in range(len(items))]


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
    blank = [torch.zeros(1, 3, own.image_size, own.image_size, device=device) for own in (facts.towers or (facts,))]
    patches = encode_tower(model, blank if model.plan.copies > 1 else blank[0], grids)
    if _reads_surroundings(model):
        made = model.abstractor([patches[0]], Surroundings.of_one_tile(device, embeddings))
        if not _returns_tiles(model):
            return made[0][:0]
        tile = made[0][None]
    elif joins_patches(model.arrangement):
        count = model.plan.preprocessing.tiles_of(side, side, facts)
        pictures = model.arrangement(patches.expand(count, -1, -1), width=side, height=side)
        return torch.cat(_of_pictures(model, pictures))[:0]
    else:
        tile = _abstracted(model, patches, torch.empty(0, 3, side, side))
    if model.arrangement is not None:
        count = model.plan.preprocessing.tiles_of(side, side, facts)
        tile = model.arrangement(tile.expand(count, -1, -1), width=side, height=side)
    return tile.flatten(0, -2)[:0]
