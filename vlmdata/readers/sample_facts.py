"""Read the facts about images in a sample's JSON, and choose the JSON fields that the row keeps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from vlmdata.fields import aligned_origins, is_ours, renamed
from vlmdata.readers.documents import SIZES
from vlmdata.readers.grounded_texts import document_groundings, geometry, pair_grounding
from vlmdata.readers.nested import texts_in
from vlmdata.readers.stated_values import labelled_boxes
from vlmdata.readers.strings import clean, is_blank

_DOCUMENT = frozenset(
    ("key", "url", "texts", "images", "metadata", "files", "alternatives", "origins", "grounding", "roles", "scores")
)
_CONVERSATION_FIELDS = frozenset(("turns", "tools"))  # fields of a document with roles
_MEASURED = frozenset(("key", "width", "height", "original_width", "original_height", "sha256", "phash"))
_OF_BOXES = ("boxes", "box_labels")
_GEOMETRY = ("original_boxes", "view")
_METADATA = {"file", "alt", "time_s", *_OF_BOXES, *_GEOMETRY, *SIZES, *_MEASURED}
OUR_KEY = re.compile(r"[0-9a-f]{24}(_\d+)?")  # form of the keys that engine/partitions/keys.py makes


def is_own_sample(facts: object, key: str) -> bool:
    """Return whether vlmdata wrote the JSON of the sample `key`: the JSON holds `key`, which has the form of our keys."""
    return isinstance(facts, Mapping) and facts.get("key") == key and OUR_KEY.fullmatch(key) is not None


def own_caption(facts: Mapping[str, Any], data: bytes) -> str | None:
    """Return the caption in the JSON of a sample from vlmdata, if `data`, the file of the caption, has the same text.

    Then the text needs no guess: it may begin with a byte order mark, hold a null character, or be JSON of a list. Otherwise,
    another program changed the file, and None is returned.
    """
    caption = facts.get("caption")
    return caption if isinstance(caption, str) and caption.encode("utf-8", "replace") == data else None


def own_texts(value: object) -> tuple[list[str], str | None]:
    """Return the texts in a list that vlmdata wrote, and `bad_encoding` if one holds an unpaired surrogate, or None."""
    raw = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
    texts = [clean(text) for text in raw]
    return texts, "bad_encoding" if texts != raw else None


def origins_in(facts: Mapping[str, Any]) -> list[str | None]:
    """Return the origin of each string in the list `alternatives` of a sample's JSON: see `aligned_origins`."""
    others = facts.get("alternatives")
    origins = aligned_origins(others, facts.get("origins"))
    return [origin for text, origin in zip(others or (), origins, strict=False) if isinstance(text, str)]


def document_origins(facts: Mapping[str, Any]) -> list[Any]:
    """Return the origins of the alternatives at each position of a document, from its JSON, or a list of None if it has none.

    The lists in the JSON must be aligned as in vlmdata's documents, except `origins`.
    """
    count = len(facts["texts"])
    others, origins = facts.get("alternatives") or [None] * count, facts.get("origins")
    if not isinstance(origins, list) or len(origins) != count:
        return [None] * count
    found = [aligned_origins(some, said) for some, said in zip(others, origins, strict=True)]
    return [one if any(one) else None for one in found]


def stated_fields(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts about an image in a sample's JSON as fields of IMAGE, without facts of a wrong type."""
    found: dict[str, Any] = {name: clean(facts[name]) for name in ("url", "alt") if isinstance(facts.get(name), str)}
    found |= {name: facts[name] for name in SIZES if type(facts.get(name)) is int and 0 <= facts[name] < 1 << 31}
    if type(facts.get("time_s")) is float and math.isfinite(facts["time_s"]):
        found["time_s"] = facts["time_s"]
    boxes, labels = labelled_boxes(facts.get("boxes"), _labels(facts), keeps_null=True)
    found |= {name: value for name, value in zip(_OF_BOXES, (boxes, labels), strict=True) if value}
    found |= geometry(facts, boxes)
    if re.fullmatch("[0-9a-f]{64}", str(facts.get("sha256"))):
        found["sha256"] = facts["sha256"]
    if re.fullmatch("[0-9a-f]{1,16}", str(facts.get("phash"))):
        found["phash"] = int(str(facts["phash"]), 16)
    return found


def _labels(facts: Mapping[str, Any]) -> Any:
    """Return the labels of the boxes in a sample's JSON, of any type.

    Datasets that earlier versions built from COCO have no `box_labels`. In them, the source's field `categories` is aligned
    with `boxes`.
    """
    is_coco = OUR_KEY.fullmatch(str(facts.get("key"))) and {"id", "file_name"} <= facts.keys()
    return facts.get("categories") if is_coco and "box_labels" not in facts else facts.get("box_labels")


def with_grounding(row: dict[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a caption pair, whose text has the grounding that its sample's JSON states."""
    found = pair_grounding(facts.get("grounding"), row)
    if found is not None:
        row["texts"] = [text and {**text, "grounding": found} for text in row["texts"]]
    return row


def unstated_fields(facts: Mapping[str, Any], key: str, row: Mapping[str, Any], image: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a sample's JSON, `facts`, that the sample's row does not hold. The caller keeps them.

    If the sample has a single image, `image` holds the facts that were read from its bytes. Sizes and hashes that agree with
    `image` are left out, because they are measured later. If `facts` holds the sample's `key`, the JSON was written by vlmdata
    or img2dataset, and all sizes and hashes are left out.
    """
    captions = _captions(row)
    has_origins = any(text.get("origins") for text in row.get("texts") or () if text)
    said = {**_address(row), **{name: image.get(name) for name in _MEASURED}}
    measured = _MEASURED if facts.get("key") == key else ()

    def is_text_of(value: Any) -> bool:
        if isinstance(value, str) and value in captions:
            return True
        texts, fault = texts_in(value)
        return fault is None and all(is_blank(text) or text in captions for text in texts)

    def is_said(name: str, value: Any) -> bool:
        if name in ("caption", "alternatives"):
            return all(map(is_text_of, value if isinstance(value, list) else [value]))
        if name == "origins":
            others = facts.get("alternatives")
            is_read = isinstance(others, list) and aligned_origins(others, value) == value and all(map(is_text_of, others))
            return is_read and (has_origins or not any(value))
        if name == "box_labels":
            return said.get(name) == _as_read(value)
        if name == "grounding":
            return pair_grounding(value, row) is not None
        return name in measured or name == "scores" or (name == "url" and value is None) or said.get(name) == value

    return {name: value for name, value in facts.items() if not (is_ours(name, value, key) and is_said(name, value))}


def _captions(row: Mapping[str, Any]) -> set[str]:
    texts = [text for text in row.get("texts") or () if text]
    return {one for text in texts for one in (text["text"], *(text.get("alternatives") or ()))}


def _as_read(labels: Any) -> Any:
    """Return the field `box_labels` as `labelled_boxes` returns it, with the values that are not texts. None: no label."""
    if not isinstance(labels, list):
        return labels
    found = [(None if is_blank(one) else clean(one)) if isinstance(one, str) else one for one in labels]
    return None if all(one is None for one in found) else found


def _address(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return `url` and what is known about boxes as the JSON of the row's sample will hold them.

    If the row has exactly one image, they are taken from this image. Otherwise, there is only the row's `url`.
    """
    images = [image for image in row.get("images") or () if image]
    return (
        {name: images[0].get(name) for name in ("url", *_OF_BOXES, *_GEOMETRY)} if len(images) == 1 else {"url": row.get("url")}
    )


def with_origin(rest: Mapping[str, Any], facts: Mapping[str, Any], key: str, **origin: Any) -> dict[str, Any]:
    """Return the fields `rest` with `origin` (facts from the source) and with the scores in `facts` as `earlier_scores`.

    A field of `rest` with the name of an added field is renamed to `column_NAME`. In a dataset from vlmdata, an old
    `source_key` is replaced by the new one, and old scores are replaced by new scores of the same name.
    """
    rest, own = dict(rest), dict(origin)
    is_written_by_us = facts.get("key") == key
    if isinstance(facts.get("scores"), dict):
        own["earlier_scores"] = facts["scores"]
        if is_written_by_us and isinstance(rest.get("earlier_scores"), dict):
            own["earlier_scores"] = {**rest.pop("earlier_scores"), **facts["scores"]}
    if is_written_by_us and OUR_KEY.fullmatch(str(rest.get("source_key"))) and "source_key" in own:
        del rest["source_key"]
    return {**renamed(rest, own), **own}


def unstated_document_fields(facts: Mapping[str, Any], key: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a document's JSON that its row, whose positions are those of the JSON, does not hold.

    If an entry of `metadata` has an unknown field, or boxes or labels that were not read, all of `metadata` is returned.
    """
    ours = _DOCUMENT | _CONVERSATION_FIELDS if facts.get("roles") else _DOCUMENT
    rest = {name: value for name, value in facts.items() if name not in ours or not is_ours(name, value, key)}
    if any(entry.keys() - _METADATA or not _holds_boxes(entry) for entry in facts["metadata"] if entry is not None):
        rest["metadata"] = facts["metadata"]
    if facts.get("origins") not in (None, document_origins(facts)):
        rest["origins"] = facts["origins"]
    if facts.get("grounding") is not None and document_groundings(facts, row) is None:
        rest["grounding"] = facts["grounding"]
    return rest


def _holds_boxes(entry: Mapping[str, Any]) -> bool:
    """Return whether an image of the row holds all that its entry of `metadata` says about boxes."""
    boxes, labels = labelled_boxes(entry.get("boxes"), entry.get("box_labels"), keeps_null=True)
    if {name: entry[name] for name in _GEOMETRY if entry.get(name) is not None} != geometry(entry, boxes):
        return False
    return (entry.get("boxes") or None) == boxes and _as_read(entry.get("box_labels")) == labels
