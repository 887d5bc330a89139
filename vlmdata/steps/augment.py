"""Draw augmentations of each image and store their parameters, which the loader and the trainer apply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.grounding.spans import Box, read_grounding
from vlmdata.images.augmentations import Operation, visible_shares
from vlmdata.images.draw_augmentations import STRONGEST, Forbidden, Ranges, draw_view, generator_of
from vlmdata.parameters import Doc
from vlmdata.row import Flat, aligned_items, flatten
from vlmdata.step import RecipeError, Step, StepContext
from vlmdata.text.scene_words import COORDINATES, has_coordinates, words_against

TEXT_REGIONS = "text_in_image.boxes"
TEXT_SEEN, NOT_EXAMINED = "text in image", "not examined for text"
MARKS = "marks"  # as visual_prompt draws them, and the name of their list in `extra`
MOST_VIEWS = 1_000
RULES = {"flip": "no_flip", "turn": "no_turn", "colour": "no_colour", "crop": "no_crop"}
SHARES = ("flip", "vertical_flip", "grayscale", "min_visible")
STRENGTHS = ("brightness", "contrast", "saturation")


@dataclass(frozen=True, kw_only=True)
class Augment(Step):
    """Draw `views` augmentations of each image, and store them as lists of operations with their parameters.

    No image is decoded. The loader applies one view of an image in each epoch with `Decode(stored_augment="augment")`, and the
    trainer with `augment: augment` in its recipe. A view depends only on the row's key, the image's position, the view's number
    and `seed`. No operation changes the size of an image. Without ranges, views are empty.

    A view does not make the texts of its row wrong. Left or right in a text, or text in the image, forbids a horizontal flip
    (`no_flip`). Above or below forbids a vertical flip and rotations beyond 15 degrees (`no_turn`). A colour forbids changes of
    hue (`no_colour`). A place in the scene or a number of things forbids crops below 90% of the area (`no_crop`). These columns
    hold the word, or what else forbade it. Every box that a text refers to stays visible. Frames of videos get no views.
    Pictures with marks get empty views, because a mark has a place, a colour and perhaps a number.

    Put the step behind `resize` and behind all steps that write texts. `check` refuses those behind it. See
    [augmentation](augmentation.md).
    """

    id: ClassVar = "vlmdata.steps.augment"
    example: ClassVar = (
        "- text_in_image\n- augment: {views: 10, crop_scale: [0.4, 1], flip: 0.5, randaugment_ops: 2, randaugment_magnitude: 9}"
    )
    reads: ClassVar = ("images", "texts", "extra")
    fetched: ClassVar = ("width",)
    needs_all_texts: ClassVar = True
    writes: ClassVar = {
        "": pa.list_(pa.list_(pa.list_(pa.string()))),
        **{column: pa.list_(pa.string()) for column in RULES.values()},
    }
    measured_by: ClassVar = (
        "views", "crop_scale", "crop_ratio", "flip", "vertical_flip", "rotate", "brightness", "contrast", "saturation", "hue",
        "grayscale", "randaugment_ops", "randaugment_magnitude", "min_visible", "text_regions", "seed",
    )  # fmt: skip

    views: Annotated[
        int, Doc("Augmentations of each image.", unit=f"1 to {MOST_VIEWS}", source="DataCompDR-1B; DataCompDR-12M has 30")
    ] = 10
    crop_scale: Annotated[
        list[float],
        Doc(
            "Least and greatest area of a crop. A crop is scaled back to the size of the image. [1, 1]: no crop.",
            unit="shares, 0 to 1",
            source="torchvision's name; open_clip trains with [0.9, 1]",
        ),
    ] = field(default_factory=lambda: [1.0, 1.0])
    crop_ratio: Annotated[
        list[float],
        Doc(
            "Least and greatest shape of a crop, as a multiple of the image's shape (width by height).",
            unit="more than 0",
            source="torchvision, which counts from a square",
        ),
    ] = field(default_factory=lambda: [3 / 4, 4 / 3])
    flip: Annotated[float, Doc("Probability of a horizontal flip.", unit="0 to 1")] = 0.0
    vertical_flip: Annotated[float, Doc("Probability of a vertical flip.", unit="0 to 1")] = 0.0
    rotate: Annotated[float, Doc("Greatest rotation in both directions.", unit="degrees, 0 to 180")] = 0.0
    brightness: Annotated[float, Doc("Greatest change of the factor 1, as in torchvision's ColorJitter.", unit="0 or more")] = (
        0.0
    )
    contrast: Annotated[float, Doc("Greatest change of the factor 1, as in torchvision's ColorJitter.", unit="0 or more")] = 0.0
    saturation: Annotated[float, Doc("Greatest change of the factor 1, as in torchvision's ColorJitter.", unit="0 or more")] = (
        0.0
    )
    hue: Annotated[float, Doc("Greatest change of the hue, as in torchvision's ColorJitter.", unit="0 to 0.5")] = 0.0
    grayscale: Annotated[float, Doc("Probability that the image becomes grey.", unit="0 to 1")] = 0.0
    randaugment_ops: Annotated[int, Doc("Operations of RandAugment. 0: none. Cubuk et al. use 2.", unit="0 to 10")] = 0
    randaugment_magnitude: Annotated[
        int, Doc("Magnitude of RandAugment.", unit=f"0 to {STRONGEST}", source="Cubuk et al. 2020, and torchvision")
    ] = 9
    min_visible: Annotated[
        float,
        Doc(
            "Share of each box of a text that stays visible. A view is drawn up to 10 times, then neither cropped nor moved.",
            unit="0 to 1",
            source="vlmdata's choice",
        ),
    ] = 0.5
    text_regions: Annotated[
        str,
        Doc("Measured column with the number of regions of text in each image. Empty: images with text may be mirrored."),
    ] = TEXT_REGIONS
    seed: Annotated[int, Doc("Another seed draws other views.", unit="any whole number")] = 0

    def check(self) -> None:
        if not 1 <= self.views <= MOST_VIEWS:
            raise RecipeError(f"{self.name}.views must lie in [1, {MOST_VIEWS}], such as 10, not {self.views}")
        for name in SHARES:
            self._check_range(name, getattr(self, name), 0, 1)
        for name in STRENGTHS:
            self._check_range(name, getattr(self, name), 0, 9)  # stored factors are at most 10
        self._check_range("rotate", self.rotate, 0, 180)
        self._check_range("hue", self.hue, 0, 0.5)
        self._check_range("randaugment_ops", self.randaugment_ops, 0, 10)
        self._check_range("randaugment_magnitude", self.randaugment_magnitude, 0, STRONGEST)
        for name, most in (("crop_scale", 1.0), ("crop_ratio", 100.0)):
            given = getattr(self, name)
            if len(given) != 2 or not 0.01 <= given[0] <= given[1] <= most:
                raise RecipeError(
                    f"{self.name}.{name} must be the least and the greatest value, both in [0.01, {most:g}], not {given}"
                )

    def _check_range(self, name: str, value: float, least: float, most: float) -> None:
        if not least <= value <= most:
            raise RecipeError(f"{self.name}.{name} must lie in [{least:g}, {most:g}], not {value}")

    def columns_read(self) -> tuple[str, ...]:
        return (*self.reads, *((self.text_regions,) if self.flip and self.text_regions else ()))

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        images, texts = flatten(rows, "images"), flatten(rows, "texts")
        against = _against(rows, images, texts)
        seen = self._text_seen(rows, images)
        boxes = _needed_boxes(rows, images, texts)
        names = ("width", "height", "time_s")
        facts = list(zip(*(images.field(name).to_pylist() for name in names), strict=True))
        keys = rows["key"].to_pylist()
        marked = [_has_marks(extra) for extra in rows["extra"].to_pylist()]
        values: dict[str, list[Any]] = {name: [None] * len(images.items) for name in self.writes}
        for at in np.flatnonzero(images.alive()):
            width, height, time_s = facts[at]
            if not width or not height or time_s is not None:
                continue
            row = int(images.parents[at])
            rules = dict(against[row])
            if why := seen[at]:
                rules |= {"flip": why, "turn": why}
            rules = dict.fromkeys(RULES, MARKS) if marked[row] else rules
            for rule, column in RULES.items():
                values[column][at] = rules.get(rule)
            if marked[row]:
                values[""][at] = [[]] * self.views
                continue
            position = int(at) - images.offsets[row].as_py()
            values[""][at] = self._views((keys[row], position), rules, (width, height), boxes.get(int(at), []))
        return {name: images.rebuild(pa.array(values[name], kind.value_type)) for name, kind in self.writes.items()}

    def _views(
        self, place: tuple[str, int], rules: Mapping[str, str], size: tuple[int, int], boxes: Sequence[Box]
    ) -> list[list[str]]:
        """Return the views of the image at `place`, (row key, position), as they are stored."""
        ranges = Ranges(
            (self.crop_scale[0], self.crop_scale[1]), (self.crop_ratio[0], self.crop_ratio[1]), self.flip, self.vertical_flip,
            self.rotate, self.brightness, self.contrast, self.saturation, self.hue, self.grayscale, self.randaugment_ops,
            self.randaugment_magnitude,
        )  # fmt: skip
        states_places = COORDINATES in rules.values()
        forbidden = Forbidden("flip" in rules, "turn" in rules, "colour" in rules, "crop" in rules, states_places)

        def keeps(view: Sequence[Operation]) -> bool:
            return bool((visible_shares(view, boxes, *size) >= self.min_visible).all())

        views = (draw_view(generator_of(*place, number, self.seed), ranges, forbidden, keeps) for number in range(self.views))
        return [[str(one) for one in view] for view in views]

    def _text_seen(self, rows: pa.Table, images: Flat) -> list[str | None]:
        """Return for each position of `images` why text in the image forbids a flip, or None."""
        if not self.flip or not self.text_regions:
            return [None] * len(images.items)
        counts = aligned_items(rows, self.text_regions, "images").to_pylist()
        return [NOT_EXAMINED if count is None else TEXT_SEEN if count else None for count in counts]


def _against(rows: pa.Table, images: Flat, texts: Flat) -> list[dict[str, str]]:
    """Return for each row what its texts forbid, by rule: the word, or COORDINATES for all rules but `colour`."""
    said: list[list[str]] = [[] for _ in range(len(rows))]
    plain: list[list[str]] = [[] for _ in range(len(rows))]  # without the boxes of spans, which follow the pixels
    fields = zip(*(texts.field(name).to_pylist() for name in ("text", "alternatives", "grounding")), strict=True)
    for row, is_alive, (text, others, grounding) in zip(texts.parents, texts.alive(), fields, strict=True):
        if is_alive and text is not None:
            said[row] += [text, *(others or ())]
            plain[row] += [_without_boxes(text, grounding), *(others or ())]
    for row, is_alive, alt, caption in zip(
        images.parents, images.alive(), images.field("alt").to_pylist(), images.field("caption").to_pylist(), strict=True
    ):
        said[row] += [one for one in (alt, caption) if one and is_alive]
    found = [words_against(one) for one in said]
    for row, own in enumerate(plain):
        if any(map(has_coordinates, own)):
            found[row].update(dict.fromkeys(("flip", "turn", "crop"), COORDINATES))
    return found


def _has_marks(extra: str | None) -> bool:
    """Return whether a step such as visual_prompt has drawn marks on the picture of a row, also when another run did so."""
    if extra is None or f'"{MARKS}"' not in extra:
        return False
    return any(isinstance(one, dict) and bool(one.get(MARKS)) for one in json.loads(extra).values())


def _without_boxes(text: str, grounding: str | None) -> str:
    known = read_grounding(grounding, text)
    for span in reversed(known.spans if known else ()):
        text = text[: span.phrase_end] + text[span.end :]
    return text


def _needed_boxes(rows: pa.Table, images: Flat, texts: Flat) -> dict[int, list[Box]]:
    """Return the boxes that the texts of a row refer to, as fractions, by the index of their image in `images.items`."""
    wanted: dict[int, set[int]] = {}
    starts, groundings, words = (
        images.offsets.to_pylist(),
        texts.field("grounding").to_pylist(),
        texts.field("text").to_pylist(),
    )
    for at in np.flatnonzero(texts.alive()):
        known = read_grounding(groundings[at], words[at]) if groundings[at] else None
        row = texts.parents[at]
        for span in known.spans if known else ():
            if starts[row] + span.image < starts[row + 1]:
                wanted.setdefault(starts[row] + span.image, set()).update(span.boxes)
    if not wanted:
        return {}
    facts = list(zip(*(images.field(name).to_pylist() for name in ("boxes", "width", "height")), strict=True))
    found: dict[int, list[Box]] = {}
    for image, numbers in wanted.items():
        boxes, width, height = facts[image]
        known_boxes = [boxes[number] for number in sorted(numbers) if boxes and number < len(boxes) and boxes[number]]
        if width and height:
            fractions = ((box[0] / width, box[1] / height, box[2] / width, box[3] / height) for box in known_boxes)
            found[image] = [box for box in fractions if box[0] < box[2] and box[1] < box[3]]
    return found
