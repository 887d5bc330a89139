"""Chooses one of the augmentations that the step `augment` stored with a sample, and says where it shows the image's boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmdata.errors import InputError
from vlmdata.grounding.frame import Frame, Shown
from vlmdata.grounding.stored_boxes import fractions_of
from vlmdata.images.augmentations import Operation, affine, read_operations, visible_shares
from vlmdata.images.resize import Transform
from vlmdata.untrusted import shown

SHOWN_BOXES = "shown_boxes"
NOWHERE = (0.0, 0.0, 0.0, 0.0)


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


@dataclass(frozen=True)
class Placed:
    """An image as the loader returns it: how it was augmented, and then resized."""

    operations: tuple[Operation, ...]
    change: Transform

    @property
    def frame(self) -> Frame:
        """Where the stored image lies in the picture that is returned."""
        width, height = self.change.source
        left, top = self.change.left, self.change.top
        resized = Frame.placed(*self.change.output, self.change.scaled, left=left, top=top)
        return Frame(width, height, affine(self.operations, width, height)).then(*self.change.output, resized.to_picture)

    def shown(self, boxes: Any, min_visible: float = 0.0) -> Shown:
        """Return the image for `write_text`, with its boxes from the value of `boxes` in a sample's JSON.

        A box is None if operations left nothing of it, or less than the share `min_visible`.
        """
        width, height = self.change.source
        known = fractions_of(boxes, width, height)
        least = max(min_visible, 1e-9)
        shares = visible_shares(self.operations, [one or NOWHERE for one in known], width, height)
        kept = [one if share >= least else None for one, share in zip(known, shares.tolist(), strict=True)]
        return Shown(kept, self.frame)

    def shown_boxes(self, boxes: list[Any]) -> list[list[float] | None]:
        """Return boxes of the stored image in pixels of the picture that is returned, aligned with `boxes`.

        A box of which nothing is left is None, and so is a value that is no box.
        """
        shown = self.shown(boxes)
        found = (shown.box(number) for number in range(len(boxes)))
        sides = self.change.output * 2
        return [box and [round(edge * side, 2) for edge, side in zip(box, sides, strict=True)] for box in found]


def entry_of(facts: Any, member: str) -> dict[str, Any] | None:
    """Return the part of a sample's JSON that describes one image: an entry of `metadata`, or for a pair the whole object."""
    if not isinstance(facts, dict):
        return None
    position = _position(facts, member)
    if position is None:
        return facts
    return facts["metadata"][position] if position >= 0 else None
