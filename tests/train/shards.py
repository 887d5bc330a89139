"""Samples of drawings as shards store them, and a stream of them without the loader, for the tests of the trainer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from bench.inputs.tars import document_sample, jpeg

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "yellow": (230, 220, 40)}
SHAPES = ("square", "circle")


def drawing(colour: str, shape: str, side: int = 48) -> np.ndarray:
    """Draw one coloured shape on white."""
    image = np.full((side, side, 3), 255, np.uint8)
    if shape == "square":
        image[side // 4 : -side // 4, side // 4 : -side // 4] = COLOURS[colour]
    else:
        cv2.circle(image, (side // 2, side // 2), side // 4, COLOURS[colour], -1)
    return image


def caption_samples(count: int) -> list[dict[str, Any]]:
    """Return caption pairs of drawings that cycle through all colours and shapes."""
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    samples = []
    for i in range(count):
        colour, shape = kinds[i % len(kinds)]
        facts = json.dumps({"key": f"{i:06d}"}).encode()
        text = f"a {colour} {shape} on white paper".encode()
        samples.append({"__key__": f"{i:06d}", "jpg": jpeg(drawing(colour, shape)), "txt": text, "json": facts})
    return samples


def conversation_samples(count: int) -> list[dict[str, Any]]:
    """Return two-turn conversations about drawings. Every fifth has no image."""
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    samples = []
    for i in range(count):
        colour, shape = kinds[i % len(kinds)]
        texts = ["What colour is it?", colour, "And what shape?", f"a {shape}"]
        positions: list[str | bytes] = list(texts)
        roles = ["user", "assistant", "user", "assistant"]
        if i % 5:
            positions.insert(0, jpeg(drawing(colour, shape)))
            roles.insert(0, "user")
        samples.append(document_sample(f"c{i:05d}", positions, roles))
    return samples


class MemoryStream:
    """A stream of packs in order, repeated without end, with a position: the least that a feed needs of a stream."""

    skipped = 0  # damaged samples that were skipped

    def __init__(self, units: Sequence[Any]) -> None:
        self.units = units
        self.position = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.position += 1
            yield self.units[(self.position - 1) % len(self.units)]

    def state_dict(self) -> dict[str, Any]:
        """Return the number of units yielded."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the number of units in the state."""
        self.position = state["position"]
