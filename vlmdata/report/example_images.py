"""Loads what the report shows of an example row: a small inline picture and the beginning of the text."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.engine.output.samples_index import open_index, places, read_span
from vlmdata.engine.partitions.tombstones import STEP as FORGOTTEN
from vlmdata.engine.store.blob_bytes import read_blob
from vlmdata.engine.store.store_protocol import Store
from vlmdata.images.decode import decode
from vlmdata.images.encode import encode
from vlmdata.images.facts import ImageError
from vlmdata.images.resize import scale_to
from vlmdata.redact import redacted
from vlmdata.report.examples import Example
from vlmdata.report.items import WHOLE
from vlmdata.report.recomputed_rows import RecomputedRows

SIDE = 208  # pixels of the longer side; shown at half this size, for high-resolution screens
QUALITY = 55  # WebP quality; a picture has about 4 kB
MAX_BYTES = 1_300_000  # maximum size of all pictures together; base64 adds a third
MAX_CHARS = 240
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufffe\uffff]+")


@dataclass(frozen=True)
class Shown:
    """An example with its picture (a `data:` URL, or None) and its text."""

    example: Example
    picture: str | None
    width: int
    height: int
    words: str


class Album:
    """Loads the pictures and texts of kept samples from the tars, and of rejected rows from `work/`."""

    def __init__(self, store: Store, recomputed: RecomputedRows | None, kept: list[Example]):
        self.store, self.recomputed = store, recomputed
        self.samples = _samples(store, [example.key for example in kept])
        self.bytes_left = MAX_BYTES

    def show(self, example: Example) -> Shown | None:
        """Return the picture and text of an example, or None if the example is no longer stored."""
        if example.is_kept:
            sample = self.samples.get(example.key)
            return None if sample is None else self._kept(example, sample)
        row = None if self.recomputed is None else self.recomputed.row(example.number)
        return None if row is None or row["drop"] == FORGOTTEN else self._rejected(example, row)

    def written(self, example: Example) -> list[tuple[str, str, str]]:
        """Return what steps wrote about a kept sample, as (step, text of the source, text of the step)."""
        sample = self.samples.get(example.key)
        if sample is None:
            return []
        facts = json.loads(read_span(self.store, sample["shard"], *places(sample)["json"]))
        texts, others, origins = ([facts.get(name)] for name in ("caption", "alternatives", "origins"))
        if "texts" in facts:
            texts, others, origins = (facts.get(name) or [] for name in ("texts", "alternatives", "origins"))
        return [
            (origin, clean(text), clean(other))
            for text, alternatives, steps in zip(texts, others, origins, strict=False)
            for other, origin in zip(alternatives or [], steps or [], strict=False)
            if origin is not None
        ]

    def _kept(self, example: Example, sample: dict[str, Any]) -> Shown:
        members = places(sample)
        facts = json.loads(read_span(self.store, sample["shard"], *members["json"]))
        names = sorted((name for name in members if name not in ("json", "txt")), key=_member_order)
        texts = facts.get("texts") or [facts.get("caption")]
        place = example.before if example.place != WHOLE and "texts" in facts else 0
        place -= 0 if "roles" in facts else min(place, example.joined)
        words = texts[place] or next((text for text in texts if text), "")
        name = names[min(example.images_before, len(names) - 1)] if names else None
        body = read_span(self.store, sample["shard"], *members[name]) if name else None
        return self._shown(example, body, words)

    def _rejected(self, example: Example, row: dict[str, Any]) -> Shown:
        images, texts = row["images"] or [], row["texts"] or []
        at = max(example.place, 0)
        image = images[at] if at < len(images) and images[at] else next((one for one in images if one), None)
        text = texts[at] if at < len(texts) and texts[at] else next((one for one in texts if one), None)
        body = None
        if image and image["blob"] is not None:
            try:
                body = read_blob(self.store, image["blob"], image["offset"], image["size"])
            except FileNotFoundError:
                body = None  # the archive was moved
        return self._shown(example, body, text["text"] if text else (image or {}).get("alt"))

    def _shown(self, example: Example, body: bytes | None, words: str | None) -> Shown:
        small = None if body is None else thumbnail(body)
        if small is None or len(small[0]) > self.bytes_left:
            return Shown(example, None, 0, 0, clean(words))
        self.bytes_left -= len(small[0])
        address = "data:image/webp;base64," + base64.b64encode(small[0]).decode()
        return Shown(example, address, small[1], small[2], clean(words))


def thumbnail(body: bytes) -> tuple[bytes, int, int] | None:
    """Return (WebP, width, height) of an image that is scaled down until no side is longer than SIDE pixels.

    Return None if `body` cannot be decoded.
    """
    try:
        pixels = decode(body, target=(SIDE, SIDE)).pixels
    except ImageError:
        return None
    height, width = pixels.shape[:2]
    share = min(1.0, SIDE / max(width, height))
    size = max(1, round(width * share)), max(1, round(height * share))
    return encode(np.ascontiguousarray(scale_to(pixels, size)), "webp", QUALITY), *size


def clean(words: str | None) -> str:
    """Return the beginning of a text, without secrets, invisible characters and characters that change the text direction."""
    text = " ".join(UNPRINTABLE.sub(" ", redacted(words or "")[: 4 * MAX_CHARS]).split())
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1].rstrip() + "…"


def _samples(store: Store, keys: list[str]) -> dict[str, dict[str, Any]]:
    """Return the lines of the index for these keys: key -> line."""
    wanted = pa.array(sorted(set(keys)), pa.string())
    found: dict[str, dict[str, Any]] = {}
    with open_index(store) as index:
        for rows in index.groups(("key", "shard", "members")):
            hit = rows.filter(pc.is_in(rows["key"], value_set=wanted))
            found.update((line["key"], line) for line in hit.to_pylist())
    return found


def _member_order(name: str) -> tuple[int, str]:
    number = name.split(".")[0]
    return (int(number) if number.isdigit() else 0, name)
