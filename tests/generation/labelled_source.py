"""Sources of caption pairs with labelled boxes: scenes that are drawn, and the photos of coco_free_licence."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.generators.facts import caption
from tests.generators.scenes import Scene, draw_scenes
from vlmdata.readers.find_files import find
from vlmdata.row import conform
from vlmdata.step import Source

SCENES = "tests.generation.labelled_source.Scenes"
PHOTOS = "tests.generation.labelled_source.Photos"


def row_of(scene: Scene) -> dict[str, Any]:
    """Return a scene as a caption pair. One of its two captions names the scene's key."""
    halves = [(thing, thing.size / 2) for thing in scene.things]
    image = {
        "data": scene.image,
        "format": "png",
        "boxes": [[thing.x - half, thing.y - half, thing.x + half, thing.y + half] for thing, half in halves],
        "box_labels": [f"{thing.colour} {thing.shape}" for thing in scene.things],
        "width": scene.side,
        "height": scene.side,
    }
    text = {"text": caption(scene), "alternatives": [f"A drawing called {scene.key}."]}
    return {"images": [image, None], "texts": [None, text]}


@dataclass(frozen=True, kw_only=True)
class Scenes(Source):
    """Drawn scenes. The file `path` holds their number."""

    path: str

    def files(self):
        return find(self.path, ("",))

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        scenes = draw_scenes(int(Path(piece["path"]).read_text()))
        yield conform(pa.Table.from_pylist([row_of(scene) for scene in scenes])).drop_columns(["key"])


@dataclass(frozen=True, kw_only=True)
class Photos(Source):
    """The photos of coco_free_licence with five captions each, and the labelled boxes of 51. `path` is its manifest."""

    path: str

    def files(self):
        return find(self.path, ("",))

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        rows = photo_rows(Path(piece["path"]).parent)
        yield conform(pa.Table.from_pylist(rows)).drop_columns(["key"])


def photo_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the photos as caption pairs, in the order of the manifest, with the bytes of the images."""
    boxes: dict[int, list[tuple[list[float], str]]] = defaultdict(list)
    for one in json.loads((folder / "boxes.json").read_text()):
        x, y, width, height = one["bbox"]
        boxes[one["id"]].append(([x, y, x + width, y + height], one["category"]))
    rows = []
    for line in (folder / "manifest.jsonl").read_text().splitlines():
        facts = json.loads(line)
        own = boxes.get(facts["id"], [])
        image = {
            "data": (folder / facts["image"]).read_bytes(),
            "format": "jpeg",
            "width": facts["width"],
            "height": facts["height"],
            "boxes": [box for box, _ in own] or None,
            "box_labels": [label for _, label in own] or None,
        }
        first, *others = (text.strip() for text in facts["captions"])
        extra = json.dumps({"file_name": facts["image"], "licence": facts["license"], "flickr_url": facts["flickr_url"]})
        rows.append({"images": [image, None], "texts": [None, {"text": first, "alternatives": others}], "extra": extra})
    return rows
