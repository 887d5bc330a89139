"""The texts that a model of images and texts compares with each image of a row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from vlmdata.row import flatten


def compared_texts(rows: pa.Table, positions: np.ndarray, around: int) -> tuple[list[str], list[int], list[str]]:
    """Return three aligned lists: the texts to compare, their images as indexes of `positions`, and their kinds.

    `positions` holds places in the flattened `images`. An image is compared with its alt text, its own caption, and the
    nearest remaining texts, up to `around` on each side, with their alternatives. The kinds are `alt`, `caption`, `before`,
    `after` and `alternative`.
    """
    images, texts = flatten(rows, "images"), flatten(rows, "texts")
    own = {name: images.field(name).to_pylist() for name in ("alt", "caption")}
    words = texts.field("text").to_pylist()
    others, is_alive = texts.field("alternatives").to_pylist(), texts.alive()
    starts, image_starts = texts.offsets.to_pylist(), images.offsets.to_pylist()
    found: list[tuple[str, int, str]] = []
    for owner, at in enumerate(positions):
        row = int(images.parents[at])
        here = int(at) - image_starts[row]
        near = _nearest(is_alive[starts[row] : starts[row + 1]], here, around)
        found += [(values[at], owner, name) for name, values in own.items() if values[at]]
        for place, kind in near:
            found.append((words[starts[row] + place], owner, kind))
            found += [(other, owner, "alternative") for other in others[starts[row] + place] or []]
    return [f[0] for f in found], [f[1] for f in found], [f[2] for f in found]


def _nearest(is_alive: np.ndarray, here: int, around: int) -> list[tuple[int, str]]:
    """Return (position, side) of the remaining texts that are nearest to the position `here`, up to `around` on each side."""
    before = [int(i) for i in np.flatnonzero(is_alive) if i < here][::-1][:around]
    after = [int(i) for i in np.flatnonzero(is_alive) if i > here][:around]
    return [(i, "before") for i in before] + [(i, "after") for i in after]
