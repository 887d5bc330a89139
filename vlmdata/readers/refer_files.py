"""Read the files of RefCOCO, RefCOCO+ and RefCOCOg: `refs(unc).p` and the like, and `instances.json` in COCO's form.

Source of the fields: `refer.py` in lichengunc/refer (Apache-2.0), and henghuiding/gRefCOCO, whose refs are JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from vlmdata.readers.coco_json import corners, entries, load
from vlmdata.readers.open_file import Damage, opened
from vlmdata.readers.plain_pickle import read_plain
from vlmdata.readers.stated_values import Box
from vlmdata.readers.strings import one_line_each
from vlmdata.step import RecipeError

LARGEST = 256 << 20  # bytes of a file of refs; RefCOCO's have less than 100 MB
LARGEST_ID = 1 << 62
MOST_SENTENCES = 2_000_000  # of all refs; RefCOCO has 142,210. A pickle can name one list of sentences in each ref


@dataclass(frozen=True)
class Instances:
    """What `instances.json` says: images and categories by id, and (image id, category id, box) by annotation id."""

    images: Mapping[int | str, Mapping[str, Any]]
    categories: Mapping[int | str, Any]
    notes: Mapping[int | str, tuple[Any, Any, Box | None]]


@dataclass(frozen=True)
class Ref:
    """An object of an image, and the distinct sentences that refer to it. Its annotations hold its boxes."""

    number: int | str | None
    image: int | str
    split: str
    notes: list[Any]
    sentences: list[str]


def read_refs(path: str) -> Iterator[tuple[int, Ref | str]]:
    """Yield the refs of a file with their numbers, from 1. A ref that cannot be used is replaced by what is wrong with it.

    Raises RecipeError if the file is neither a pickle of plain values nor JSON, or holds no list.
    """
    said = 0
    for number, one in enumerate(_list_in(path), 1):
        some = one.get("sentences") if isinstance(one, Mapping) else None
        said += len(some) if isinstance(some, list) else 0
        if said > MOST_SENTENCES:
            raise RecipeError(f"{path} has more than {MOST_SENTENCES:,} sentences, which is no file of refs. Use `box_list`")
        yield number, _ref(one)


def read_instances(path: str) -> Instances:
    """Read an `instances.json` into memory, without its outlines. Raises RecipeError if it has another form."""
    tree = load(path)
    return Instances(
        {one["id"]: one for one in entries(path, tree, "images", "id")},
        {one["id"]: one.get("name") for one in entries(path, tree, "categories", "id")},
        {
            one["id"]: (one.get("image_id"), one.get("category_id"), corners(one.get("bbox")))
            for one in entries(path, tree, "annotations", "id")
        },
    )


def _list_in(path: str) -> list[Any]:
    with opened(path) as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise RecipeError(f"{path} has more than {LARGEST >> 20} MiB. Files of refs are smaller")
    try:
        found = json.loads(data) if data.lstrip()[:1] == b"[" else read_plain(data)
    except (Damage, ValueError, RecursionError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, list):
        raise RecipeError(f"{path} must hold a list of refs, and holds a value of the type {type(found).__name__}")
    return found


def _ref(value: Any) -> Ref | str:
    if not isinstance(value, Mapping):
        return "the ref is not a dict"
    image, split, notes = value.get("image_id"), value.get("split"), value.get("ann_id")
    if not _is_id(image):
        return "the ref has no number as 'image_id'"
    if not isinstance(split, str):
        return "the ref has no text as 'split'"
    said = value.get("sentences")
    sentences = one_line_each(map(_sentence, said)) if isinstance(said, list) else []
    notes = notes if isinstance(notes, list) else [notes]
    number = value.get("ref_id")  # in a pickle it may be a list in lists, of which nobody could write the end
    return Ref(number if _is_id(number) else None, image, split, notes, sentences)


def _is_id(value: object) -> TypeGuard[int | str]:
    return isinstance(value, str) or (isinstance(value, int) and abs(value) < LARGEST_ID)


def _sentence(value: Any) -> Any:
    """Return the text of a sentence: `sent`, which is in lower case without punctuation, or else `raw`."""
    return value.get("sent") or value.get("raw") if isinstance(value, Mapping) else value
