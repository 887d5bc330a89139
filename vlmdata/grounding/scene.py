"""What is surely known about the objects of a picture from its labelled boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vlmdata.grounding.spans import Box
from vlmdata.grounding.stored_boxes import StoredBox, stored_boxes
from vlmdata.text.object_names import ObjectNames, plain

GROUP = 3  # boxes of the same label inside of a box that is taken for one around a group, as COCO draws around crowds
INSIDE = 0.9  # share of a box that lies inside of another one
SAME_PLACE = 0.5  # intersection over union of two boxes from which one question could mean either object


class Thing(NamedTuple):
    """An object: the number of its box in the image's `boxes`, its label, and its place as fractions of the stored image."""

    number: int
    label: str
    place: Box


@dataclass(frozen=True)
class Scene:
    """The objects of one image of a row.

    `complete` has the objects by name, for the names of which every object in the picture has a box that can be used. `alone`
    has the objects that their label describes alone. `clear` has those whose label says what is at their place:
    phrases, and names where no other object lies.
    """

    image: int  # position in the lists of the row
    width: int
    height: int
    places: tuple[Box | None, ...]  # of all boxes of the image
    labels: frozenset[str]  # of all boxes, also of those that cannot be used
    named: frozenset[str]  # what these labels name in any words: a box "Men" names a person
    complete: Mapping[str, tuple[Thing, ...]]
    alone: tuple[Thing, ...]
    clear: tuple[Thing, ...]
    is_known: bool  # whether every box in the picture has a label


@dataclass(frozen=True)
class Rules:
    """What is known of labels, and which boxes can be used.

    `names` are labels of which every object in a picture has a box, and `words` are other words for them. `phrases`: every
    label is a phrase that describes one place. Shares are of the object's box (`min_visible`) and of the picture (`min_area`).
    """

    names: frozenset[str]
    words: ObjectNames
    phrases: bool
    min_visible: float
    min_area: float

    def is_phrase(self, label: str) -> bool:
        """Return whether a label is a phrase that describes its box."""
        return self.phrases and label not in self.names


def scene_of(
    image: Mapping[str, Any], position: int, labels: Sequence[str | None], rules: Rules, crowds: Collection[int] = ()
) -> Scene | None:
    """Return what is known of an image, or None if it has no labelled box or its size is not known.

    `image` has the fields of IMAGE that `stored_boxes` reads. `labels` are aligned with its boxes. A name is complete if all
    its boxes can be used, and if no other label names such an object, as "man" or "Dogs" do beside "person" and "dog". A box
    that a crop has cut away completely does not count; one that is cut, too small or without a known place does, as its object
    may still be seen. So does a box around a group: one of `crowds`, the numbers of such boxes, or one that holds three others
    of its label. If one box has no label, it may be anything, so nothing is complete.
    """
    stored = stored_boxes(image)
    boxes = image.get("boxes") or []
    if not stored or len(labels) != len(boxes) or not any(labels):
        return None
    groups = _groups(stored, labels).union(crowds)
    things = [
        Thing(number, label, one.place)
        for number, (one, label) in enumerate(zip(stored, labels, strict=True))
        if label and one and _usable(one, rules) and number not in groups
    ]
    usable = {thing.number for thing in things}
    doubtful = {label for number, label in enumerate(labels) if number not in usable and boxes[number] is not None}
    by_label: dict[str, list[Thing]] = {}
    for thing in things:
        by_label.setdefault(thing.label, []).append(thing)
    counts = Counter(label for label in labels if label)
    named = {label: rules.words.all_named(label) | {plain(label)} for label in counts} if rules.names else {}
    names = [(one, plain(one)) for one in by_label if one in rules.names]
    doubtful |= {one for one, words in names if any(words in some for label, some in named.items() if label != one)}
    is_known = all(label for label, box in zip(labels, boxes, strict=True) if box is not None)
    complete = {
        label: tuple(some) for label, some in by_label.items() if is_known and label in rules.names and label not in doubtful
    }
    single = [some[0] for label, some in by_label.items() if len(some) == 1 and counts[label] == 1]
    alone = [one for one in single if rules.is_phrase(one.label) or one.label in complete]
    shared = _shared(things, stored, labels) if is_known and not all(rules.is_phrase(one.label) for one in things) else set()
    return Scene(
        position,
        int(image["width"]),
        int(image["height"]),
        tuple(None if one is None else one.place for one in stored),
        frozenset(counts),
        frozenset().union(*named.values()),
        complete,
        tuple(alone),
        tuple(one for one in things if rules.is_phrase(one.label) or (is_known and one.number not in shared)),
        is_known,
    )


def _usable(box: StoredBox, rules: Rules) -> bool:
    return box.visible >= rules.min_visible and _area(box.place) >= rules.min_area


def _groups(stored: Sequence[StoredBox | None], labels: Sequence[str | None]) -> set[int]:
    """Return the numbers of the boxes that hold at least three others with their label."""
    by_label: dict[str, list[tuple[int, Box]]] = {}
    for number, (one, label) in enumerate(zip(stored, labels, strict=True)):
        if label and one is not None:
            by_label.setdefault(label, []).append((number, one.place))
    found: set[int] = set()
    for some in by_label.values():
        if len(some) > GROUP:
            places = np.array([place for _, place in some])
            least = INSIDE * _areas(places)
            # each box also holds itself
            found |= {number for number, place in some if np.count_nonzero(_common(place, places) >= least) > GROUP}
    return found


def _shared(things: Sequence[Thing], stored: Sequence[StoredBox | None], labels: Sequence[str | None]) -> set[int]:
    """Return the numbers of the things at whose place nearly an object with another label lies."""
    known = [(one.place, label) for one, label in zip(stored, labels, strict=True) if one is not None]
    places, said = np.array([place for place, _ in known]), np.array([label or "" for _, label in known], object)
    areas = _areas(places)
    found: set[int] = set()
    for thing in things:
        common = _common(thing.place, places)
        near = np.flatnonzero(common >= SAME_PLACE * (_area(thing.place) + areas - common))
        if any(said[at] != thing.label for at in near):
            found.add(thing.number)
    return found


def _common(one: Box, places: np.ndarray) -> np.ndarray:
    """Return the area of the intersection of a box with each of the boxes (n, 4)."""
    widths = np.minimum(one[2], places[:, 2]) - np.maximum(one[0], places[:, 0])
    heights = np.minimum(one[3], places[:, 3]) - np.maximum(one[1], places[:, 1])
    return np.maximum(widths, 0.0) * np.maximum(heights, 0.0)


def _areas(places: np.ndarray) -> np.ndarray:
    return (places[:, 2] - places[:, 0]) * (places[:, 3] - places[:, 1])


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def absent_names(scene: Scene, names: Iterable[str], said: Collection[str]) -> list[str]:
    """Return the names of objects that are surely not in the picture: no label of a box names them, and no caption (`said`)."""
    return sorted({name for name in names if plain(name) not in scene.named and plain(name) not in said})
