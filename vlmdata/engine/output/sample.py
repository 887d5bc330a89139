"""Turns kept rows into samples.

A member of a sample has a name in the tar, and either bytes or the place of its bytes in a blob, which is a file of images.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import pyarrow as pa

from vlmdata.fields import aligned_origins, carried
from vlmdata.generator import ANSWERS, ASKED
from vlmdata.grounding.current import Current, Kept, current, joined
from vlmdata.grounding.spans import Grounding, read_grounding
from vlmdata.grounding.stored_boxes import stored_boxes
from vlmdata.row import ROW, alive

ENDING = {"jpeg": "jpg"}  # format -> ending of a member's name; for other formats, the ending is the format's name
FACTS = ("width", "height", "original_width", "original_height", "sha256")


class BlobPlace(NamedTuple):
    """The place of an image's bytes: `size` bytes from `offset` in the file `blob`."""

    blob: str
    offset: int
    size: int


class TarSample(NamedTuple):
    """A training sample as it is written to a tar. `images` holds the (width, height) of each image.

    `members` holds a pair for each member, sorted by name. The first item is the name, such as `jpg` or `0.jpg`. The second is
    the bytes, or their place in a blob.
    """

    key: str
    members: list[tuple[str, bytes | BlobPlace]]
    text_chars: int
    images: list[tuple[int, int]]
    scores: dict[str, float]


def samples(rows: pa.Table, layout: str, start: int, stop: int) -> Iterator[TarSample]:
    """Yield the kept rows [start, stop) of a partition as samples. `start` and `stop` count only kept rows."""
    kept = rows.filter(pa.array(alive(rows))).slice(start, stop - start)
    measured = measured_columns(kept)
    for row in kept.to_pylist():
        scores = {name: _plain(row[name]) for name in measured}
        yield _caption(row, scores) if layout == "captions" else _document(row, scores)


def _plain(value: Any) -> Any:
    """Convert a measured value for JSON. NaN and infinity become None, dates and durations become strings, bytes become hex."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return _plain(float(value))
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def measured_columns(rows: pa.Table) -> list[str]:
    """Return the columns that steps measured, except embeddings and raw answers, which serve steps and are too large."""
    return [f.name for f in rows.schema if f.name not in ROW.names and f.type not in (pa.list_(pa.binary()), ANSWERS, ASKED)]


def _caption(row: dict[str, Any], scores: dict[str, Any]) -> TarSample:
    """Return a caption pair in the layout of img2dataset and open_clip: key.jpg, key.txt and key.json."""
    positions = [i for i, image in enumerate(row["images"] or []) if image and image["drop"] is None]
    texts = [text for text in row["texts"] or [] if text and text["drop"] is None]
    assert len(positions) == 1 and len(texts) <= 1, "Fit, the last bound step, drops other rows"
    image = row["images"][positions[0]]
    caption: dict[str, Any] = texts[0] if texts else {"text": "", "alternatives": None, "origins": None, "grounding": None}
    words, grounding, _ = current_text(caption, kept_images({positions[0]: (0, image)}))
    own = {name: _at(value, positions[0], row) for name, value in scores.items()}
    facts = {
        **carried(row["extra"]),
        "key": row["key"],
        "url": image["url"],
        "caption": words,
        "alternatives": caption["alternatives"] or None,
        "origins": _origins(caption),
        "grounding": grounding and grounding.as_json(),
        **_facts(image),
        "scores": own or None,
    }
    members: list[tuple[str, bytes | BlobPlace]] = [
        (_ending(image), _body(image)),
        ("json", _json(facts)),
        ("txt", words.encode("utf-8", "replace")),
    ]
    return TarSample(row["key"], sorted(members), len(words), [_size(image)], _floats(own))


def _document(row: dict[str, Any], scores: dict[str, Any]) -> TarSample:
    """Return a document as a sample: the images key.0.jpg, key.1.jpg …, and key.json.

    The JSON has the lists texts, images, metadata, files, roles and turns. Each list has one entry for each position that was
    not rejected. Measured lists with one value per position are shortened in the same way. If no image is left between two
    texts, the texts are joined into one entry with an empty line between them, as in OBELICS. A joined text has no scores.
    Texts of a conversation and texts with alternatives stay separate.
    """
    pairs = list(itertools.zip_longest(_kept_items(row["images"]), _kept_items(row["texts"])))  # an image or text may be None
    positions = [i for i, (image, text) in enumerate(pairs) if image or text]
    texts = [text for _, text in pairs]
    runs = [[i] for i in positions] if row["roles"] else _runs(positions, texts)
    images = [pairs[run[0]][0] for run in runs]
    kept = kept_images({run[0]: (n, image) for n, (run, image) in enumerate(zip(runs, images, strict=True)) if image})
    written = [_joined([text for i in run if (text := texts[i])], kept) for run in runs]
    others, origins = [item.alternatives for item in written], [item.origins for item in written]
    groundings = [item.grounding for item in written]
    names = _member_names(images)
    own = {name: [_of_run(v, run) for run in runs] if _is_aligned(v, row) else v for name, v in scores.items()}
    facts = {
        **carried(row["extra"]),
        "key": row["key"],
        "url": row["url"],
        "texts": [item.text for item in written],
        "images": [image["url"] if image else None for image in images],
        "metadata": [_metadata(name, image) if image else None for name, image in zip(names, images, strict=True)],
        "files": [f"{row['key']}.{name}" if name else None for name in names],  # the names that NeMo Curator's reader expects
        "alternatives": others if any(others) else None,
        "origins": origins if any(origins) else None,
        "grounding": [one and one.as_json() for one in groundings] if any(groundings) else None,
        "roles": [row["roles"][i] for i in positions] if row["roles"] else None,
        "turns": _turns(row, positions) if row["roles"] else None,
        "tools": json.loads(row["tools"]) if row["tools"] else None,
        "scores": own or None,
    }
    members = [(name, _body(image)) for name, image in zip(names, images, strict=True) if name and image]
    members.append(("json", _json({name: value for name, value in facts.items() if value is not None or name == "url"})))
    chars = sum(len(item.text or "") for item in written)
    return TarSample(row["key"], sorted(members), chars, [_size(image) for image in images if image], _floats(own))


def _kept_items(items: list[dict[str, Any] | None] | None) -> list[dict[str, Any] | None]:
    """Return images or texts, with None in place of each item that a step rejected."""
    return [item if item and item["drop"] is None else None for item in items or []]


class Words(NamedTuple):
    """A text of a sample, its alternatives and their origins, and its grounding. All are None at the position of an image."""

    text: str | None = None
    alternatives: list[str] | None = None
    origins: list[str | None] | None = None
    grounding: Grounding | None = None


def _joined(texts: list[dict[str, Any]], kept: Mapping[int, Kept]) -> Words:
    """Return the texts joined into one, with the alternatives of the first text. `kept` is as in `current_text`."""
    if not texts:
        return Words()
    words, grounding = joined([current_text(text, kept)[:2] for text in texts])
    return Words(words, texts[0]["alternatives"] or None, _origins(texts[0]), grounding)


def kept_images(places: Mapping[int, tuple[int, dict[str, Any]]]) -> dict[int, Kept]:
    """Return the images to which the spans of texts may refer, by position in the row.

    `places` has the position in the sample's lists and the image, by its position in the row.
    """
    shown = {place: (number, stored_boxes(image)) for place, (number, image) in places.items()}
    return {
        place: Kept(number, None if boxes is None else [box and box.place for box in boxes])
        for place, (number, boxes) in shown.items()
    }


def current_text(text: Mapping[str, Any], kept: Mapping[int, Kept]) -> Current:
    """Return a text of a row with the numbers of the boxes as the images `kept` are stored, and with its grounding."""
    grounding = read_grounding(text["grounding"], text["text"])
    return Current(text["text"], None) if grounding is None else current(text["text"], grounding, kept)


def _origins(text: dict[str, Any]) -> list[str | None] | None:
    """Return the origins of a text's alternatives, aligned with them, or None if all of them came from the source."""
    origins = aligned_origins(text["alternatives"], text["origins"])
    return origins if any(origins) else None


def _member_names(images: list[dict[str, Any] | None]) -> list[str | None]:
    """Return the name of each position's image without the key, such as 0.jpg, or None for a position without an image."""
    numbers = itertools.count()
    return [f"{next(numbers)}.{_ending(image)}" if image else None for image in images]


def _metadata(name: str | None, image: dict[str, Any]) -> dict[str, Any]:
    facts = {"file": name, "alt": image["alt"], "time_s": image["time_s"], **_facts(image)}
    return {fact: value for fact, value in facts.items() if value is not None}


def _turns(row: dict[str, Any], positions: list[int]) -> list[dict[str, Any] | None] | None:
    """Return the sample's `turns`: for each kept position, a dict of facts about the message, or None.

    `positions` holds the kept positions. If no position has facts, return None. The facts about a message move to its first
    kept position. Two messages of one role stay two messages, even if the message between them was rejected. Images of a
    message whose texts were all rejected become a part of the next kept message, if it has the same role.
    """
    roles = row["roles"]
    turns = [json.loads(turn) if turn else {} for turn in row["turns"] or [None] * len(roles)]
    starts: list[int] = []  # for each position, the first position of its message
    for i, (role, turn) in enumerate(zip(roles, turns, strict=True)):
        starts.append(i if i == 0 or role != roles[i - 1] or turn.get("begins") else starts[-1])
    _join_images(row, positions, starts)
    found: list[dict[str, Any] | None] = []
    before: int | None = None
    for i in positions:
        is_first = before is None or starts[before] != starts[i]
        own = {name: value for name, value in turns[starts[i]].items() if name not in ("kind", "begins")} if is_first else {}
        if "kind" in turns[i]:
            own["kind"] = turns[i]["kind"]
        if is_first and (roles[i] == "tool" or (before is not None and roles[before] == roles[i])):
            own["begins"] = True
        found.append(own or None)
        before = i
    return found if any(found) else None


def _join_images(row: dict[str, Any], positions: list[int], starts: list[int]) -> None:
    """Change `starts` so that images whose message lost all its texts belong to the next kept message of the same role."""
    with_text = {starts[i] for i, text in enumerate(row["texts"]) if text and text["drop"] is None}
    had_text = {starts[i] for i, text in enumerate(row["texts"]) if text}
    for i, after in reversed(list(itertools.pairwise(positions))):
        if starts[i] in had_text - with_text and row["roles"][i] == row["roles"][after]:
            starts[i] = starts[after]


def _runs(positions: list[int], texts: list[Any]) -> list[list[int]]:
    """Divide the kept positions into groups, in order.

    Consecutive texts without alternatives, with no image left between them, form one group. Any other position is a group of
    its own.
    """
    runs: list[list[int]] = []
    for i in positions:
        text, before = texts[i], texts[runs[-1][-1]] if runs else None
        if text and before and not text["alternatives"] and not before["alternatives"]:
            runs[-1].append(i)
        else:
            runs.append([i])
    return runs


def _of_run(values: list[Any], run: list[int]) -> Any:
    return values[run[0]] if len(run) == 1 else None


def _ending(image: dict[str, Any]) -> str:
    return ENDING.get(image["format"], image["format"])


def _body(image: dict[str, Any]) -> bytes | BlobPlace:
    """Return the place of an image's bytes in a blob.

    If the source gave the bytes inline and no step put them into a blob, return the bytes.
    """
    return BlobPlace(image["blob"], image["offset"], image["size"]) if image["data"] is None else image["data"]


def _facts(image: dict[str, Any]) -> dict[str, Any]:
    facts = {name: image[name] for name in FACTS}
    facts["phash"] = None if image["phash"] is None else f"{image['phash']:016x}"
    boxes = image["boxes"] or []
    facts["boxes"] = boxes or None
    facts["box_labels"] = image["box_labels"] if boxes and any(image["box_labels"] or ()) else None
    originals = image["original_boxes"] or []
    facts["original_boxes"] = originals if originals and len(originals) == len(boxes) else None
    facts["view"] = image["view"] if facts["original_boxes"] else None
    return facts


def _size(image: dict[str, Any]) -> tuple[int, int]:
    return image["width"] or 0, image["height"] or 0


def _is_aligned(value: Any, row: dict[str, Any]) -> bool:
    return isinstance(value, list) and len(value) == len(row["images"] or row["texts"] or [])


def _at(value: Any, position: int, row: dict[str, Any]) -> Any:
    """Return the score of a caption pair from `value`, which is the row's value of a measured column.

    If `value` is a list with one entry per position, return the image's entry or, if that is None, the text's entry. Any other
    `value` is the score itself.
    """
    if not _is_aligned(value, row):
        return value
    return value[position] if value[position] is not None else next((v for v in value if v is not None), None)


def _floats(scores: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in scores.items() if isinstance(value, int | float)}


def _json(values: dict[str, Any]) -> bytes:
    """Return JSON with sorted names. Names inside `tools` keep their order, because chat templates show them in this order."""
    kept = {name: value for name, value in values.items() if value is not None or name in ("url", "caption")}
    dump = functools.partial(json.dumps, ensure_ascii=False, separators=(",", ":"))
    if "tools" not in kept:
        return dump(kept, sort_keys=True).encode("utf-8", "replace")
    pairs = [f"{dump(name)}:{dump(kept[name], sort_keys=name != 'tools')}" for name in sorted(kept)]
    return f"{{{','.join(pairs)}}}".encode("utf-8", "replace")
