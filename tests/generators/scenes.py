"""Pictures of coloured shapes whose facts are known: drawn from a seed, or the boxes of NLVR.

Source of the NLVR pictures and of their `structured_rep`: Suhr et al. 2017, "A Corpus of Natural Language for Visual
Reasoning", CC BY 4.0.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from tests.real_data import real_data

PAINT = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (0, 90, 255), "yellow": (250, 220, 0), "black": (0, 0, 0)}
SHAPES = ("circle", "square", "triangle")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
PLACES = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
SIDE = 96  # pixels of a drawn picture
KEY = re.compile(r"\bpicture-[0-9a-f]{12}\b")
NLVR_COLOURS = {"Yellow": "yellow", "Black": "black", "#0099ff": "blue"}
NLVR_BOX, NLVR_GAP = 100, 50  # pixels of a box, and between two boxes
THUMBNAIL = 16  # pixels of a side
FAR = 700.0  # the least distance of two pictures of one set, see Album; JPEG and halved sides change a picture by less than 350


@dataclass(frozen=True)
class Thing:
    """An object of a picture, with the pixel coordinates of its centre and the length of its side in pixels."""

    colour: str
    shape: str
    x: float
    y: float
    size: int


@dataclass(frozen=True)
class Scene:
    """A picture as a PNG file, what is in it, and the length of its side in pixels."""

    things: tuple[Thing, ...]
    side: int
    image: bytes

    @functools.cached_property
    def key(self) -> str:
        """A name that is a function of the facts, for prompts without a picture."""
        return f"picture-{hashlib.sha256(repr(self.things).encode()).hexdigest()[:12]}"

    def place(self, thing: Thing) -> str:
        """Return the ninth of the picture in which the centre of a thing is."""
        row, column = (min(int(3 * value / self.side), 2) for value in (thing.y, thing.x))
        return f"{ROWS[row]} {COLUMNS[column]}"


def thumbnail(image: bytes) -> np.ndarray:
    """Return the mean colours of 16 x 16 fields of a picture of any format and size: (768,), 0 to 255."""
    with Image.open(io.BytesIO(image)) as picture:
        small = picture.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()


class Album:
    """A set of scenes in which a picture is found by its bytes, or after it was encoded or resized again.

    The distance of two pictures is the Euclidean distance of their thumbnails. No two scenes are nearer than `margin`. So a
    picture within half of it from a scene is nearer to that scene than to every other (triangle inequality): the match is
    unique. A picture that is farther from all scenes is not found.
    """

    def __init__(self, scenes: Iterable[Scene]) -> None:
        self.scenes: Sequence[Scene] = tuple(scenes)
        self._thumbnails = np.stack([thumbnail(scene.image) for scene in self.scenes])
        self._by_bytes = {scene.image: scene for scene in self.scenes}
        self.by_key = {scene.key: scene for scene in self.scenes}
        assert len(self.by_key) == len(self.scenes), "two scenes have the same facts"
        self.margin = min((self._distances(row, upto=number).min() for number, row in self._rows()), default=FAR)
        assert self.margin >= FAR, f"two scenes look alike, their distance is {self.margin}"

    def _rows(self) -> Iterator[tuple[int, np.ndarray]]:
        return ((number, row) for number, row in enumerate(self._thumbnails) if number)

    def _distances(self, row: np.ndarray, upto: int | None = None) -> np.ndarray:
        return np.linalg.norm(self._thumbnails[:upto] - row, axis=1)

    def nearest(self, image: bytes) -> tuple[Scene, float]:
        """Return the scene that looks most like a picture, and its distance."""
        distances = self._distances(thumbnail(image))
        best = int(distances.argmin())
        return self.scenes[best], float(distances[best])

    def find(self, images: Sequence[bytes], text: str = "") -> Scene | None:
        """Return the scene of the last picture, or without pictures the scene of the last key in the text. None: not found."""
        if not images:
            keys = [key for key in KEY.findall(text) if key in self.by_key]
            return self.by_key[keys[-1]] if keys else None
        if images[-1] in self._by_bytes:
            return self._by_bytes[images[-1]]
        scene, distance = self.nearest(images[-1])
        return scene if distance < self.margin / 2 else None


def apart(scenes: Iterable[Scene], count: int) -> list[Scene]:
    """Return the first `count` scenes that do not look like an earlier one. Raise ValueError if there are too few."""
    kept: list[Scene] = []
    seen = np.empty((count, 3 * THUMBNAIL**2), dtype=np.float32)
    for scene in scenes:
        row = thumbnail(scene.image)
        if kept and np.linalg.norm(seen[: len(kept)] - row, axis=1).min() < FAR:
            continue
        seen[len(kept)] = row
        kept.append(scene)
        if len(kept) == count:
            return kept
    raise ValueError(f"there are only {len(kept)} scenes of {count} that look different")


def draw_scenes(count: int, seed: int = 0) -> list[Scene]:
    """Draw pictures of 1 to 6 shapes that do not look alike. The facts are a function of count and seed."""
    rng = random.Random(f"scenes {seed}")
    return apart((_drawn(rng) for _ in range(20 * count + 100)), count)


def _drawn(rng: random.Random) -> Scene:
    """Draw each thing into another ninth of the picture."""
    third, things = SIDE // 3, []
    picture = Image.new("RGB", (SIDE, SIDE), (235, 235, 235))
    for field in rng.sample(range(9), rng.randint(1, 6)):
        size = rng.choice((18, 22, 26))
        row, column = divmod(field, 3)
        left, top = (third * cell + rng.randint(2, third - size - 2) for cell in (column, row))
        thing = Thing(rng.choice(list(PAINT)), rng.choice(SHAPES), left + size / 2, top + size / 2, size)
        _paint(ImageDraw.Draw(picture), thing, left, top)
        things.append(thing)
    return Scene(tuple(things), SIDE, _png(picture))


def _paint(draw: ImageDraw.ImageDraw, thing: Thing, left: int, top: int) -> None:
    right, bottom, paint = left + thing.size - 1, top + thing.size - 1, PAINT[thing.colour]
    if thing.shape == "circle":
        draw.ellipse((left, top, right, bottom), fill=paint)
    elif thing.shape == "square":
        draw.rectangle((left, top, right, bottom), fill=paint)
    else:
        draw.polygon([(left, bottom), (right, bottom), ((left + right) / 2, top)], fill=paint)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def nlvr_scenes(count: int) -> list[Scene]:
    """Return boxes of NLVR that do not look alike, at most 861. Skip the test if the data does not exist."""
    return apart(_nlvr_boxes(), count)


def _nlvr_boxes() -> Iterator[Scene]:
    folder = real_data("D_instruction/nlvr/nlvr/dev")
    for line in (folder / "dev.json").read_text().splitlines():
        facts = json.loads(line)
        path = folder / "images" / facts["directory"] / f"dev-{facts['identifier']}-0.png"  # in the order of structured_rep
        with Image.open(path) as whole:
            strip = whole.convert("RGB")
        for number, box in enumerate(facts["structured_rep"]):
            left = number * (NLVR_BOX + NLVR_GAP)
            image = _png(strip.crop((left, 0, left + NLVR_BOX, NLVR_BOX)))
            yield Scene(tuple(_thing(one) for one in box), NLVR_BOX, image)


def _thing(one: dict) -> Thing:
    half = one["size"] / 2
    return Thing(NLVR_COLOURS[one["color"]], one["type"], one["x_loc"] + half, one["y_loc"] + half, one["size"])
