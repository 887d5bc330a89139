"""Chooses one of the augmentations that the step `augment` stored with a sample, and says where it shows the image's boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlmdata.errors import InputError
from vlmdata.grounding.frame import Affine, Frame
from vlmdata.images.augmentations import Operation, affine, read_operations, visible_share
from vlmdata.images.resize import Transform
from vlmdata.untrusted import shown

SHOWN_BOXES = "shown_boxes"
MOST = 1e9  # pixels; an edge beyond this is no edge of a box


def operations_of(facts: Any, member: str, column: str, seed: int, *, moves: bool = False) -> tuple[Operation, ...]:
    """Return the operations that a sample's epoch applies to the image `member`, such as `jpg` or `0.jpg`.

    `facts` is the sample's JSON as Python values, `column` the measured column with the views, and `seed` the sample's
    `__seed__`, which differs in each epoch. All views of an image are equally likely. An image without views, such as a frame
    of a video, is not changed. In a sample with boxes in its texts, an image is moved only if `moves` is true: the caller then
    writes the boxes for the pixels. Without it, operations that move pixels are left out. Raises InputError if the sample lacks
    the column, and ValueError if its value cannot be read.
    """
    scores = facts.get("scores") if isinstance(facts, Mapping) else None
    if not isinstance(scores, Mapping) or column not in scores:
        found = ", ".join(sorted(map(str, scores))[:20]) if isinstance(scores, Mapping) else "none"
        raise InputError(
            f"stored_augment={column!r}: a sample has no column {shown(column)} with augmentations. Its columns: {found}."
            " Build the dataset with the step augment, or leave out stored_augment"
        )
    views = scores[column]
    if views is not None and (position := _position(facts, member)) is not None:
        views = views[position] if isinstance(views, list) and 0 <= position < len(views) else None
    if views is None or views == []:
        return ()
    if not isinstance(views, list):
        raise ValueError(f"{column} is no list of views")
    random = np.random.Generator(np.random.PCG64([seed, *f"{column} {member}".encode()]))
    view = read_operations(views[int(random.integers(len(views)))])
    return view if moves or not facts.get("grounding") else tuple(one for one in view if not one.moves)


def _position(facts: Mapping[str, Any], member: str) -> int | None:
    """Return the position of an image in the lists of a document, -1 if they lack it, or None for a caption pair."""
    metadata = facts.get("metadata")
    if not isinstance(metadata, list):
        return None
    names = (member, f"{facts.get('key')}.{member}")  # NeMo Curator's form has the key
    found = (at for at, image in enumerate(metadata) if isinstance(image, Mapping) and image.get("file") in names)
    return next(found, -1)


def frame_after(operations: tuple[Operation, ...], change: Transform) -> Frame:
    """Return where the stored image lies in the picture after `operations` and a resize. Both are in fractions."""
    width, height = change.source
    resized: Affine = (
        change.scaled[0] / change.output[0], 0.0, change.left / change.output[0],
        0.0, change.scaled[1] / change.output[1], change.top / change.output[1],
    )  # fmt: skip
    return Frame(width, height, affine(operations, width, height)).then(*change.output, resized)


def shown_boxes(
    boxes: Any, size: tuple[int, int], frame: Frame, operations: tuple[Operation, ...]
) -> list[list[float] | None] | None:
    """Return boxes of a stored image of `size` in pixels of the frame's picture, or None if `boxes` is no list.

    The result is aligned with `boxes`. It has None for a box of which nothing is left after the operations and the resize, and
    for a value that is no box.
    """
    if not isinstance(boxes, list):
        return None
    return [_shown(box, size, frame, operations) for box in boxes]


def _shown(box: Any, size: tuple[int, int], frame: Frame, operations: tuple[Operation, ...]) -> list[float] | None:
    if not isinstance(box, list) or len(box) != 4 or not all(type(edge) in (int, float) and abs(edge) < MOST for edge in box):
        return None
    x0, y0, x1, y1 = (edge / side for edge, side in zip(box, (*size, *size), strict=True))
    found = frame.box((x0, y0, x1, y1))
    if found is None or not visible_share(operations, (x0, y0, x1, y1), *size):
        return None
    sides = (frame.width, frame.height) * 2
    return [round(edge * side, 2) for edge, side in zip(found[0], sides, strict=True)]


def entry_of(facts: Any, member: str) -> dict[str, Any] | None:
    """Return the part of a sample's JSON that describes one image: an entry of `metadata`, or for a pair the whole object."""
    if not isinstance(facts, dict):
        return None
    position = _position(facts, member)
    if position is None:
        return facts
    return facts["metadata"][position] if position >= 0 else None
