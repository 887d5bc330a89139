"""Suggest a file that may hold the caption of an image without a caption, and the parameter that reads the file."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
TEXTS = (".txt", ".text", ".caption", ".captions", ".cap", ".md", ".xml", ".srt", ".token", *TABLES)

_LISTS = tuple(ending for ending in TABLES if ending != ".json")  # a .json may belong to one image


def overlooked(image: str, texts: Collection[str], facts: Mapping[str, Any]) -> str | None:
    """Return a sentence that suggests where an image's caption may be, or None if `texts` and `facts` are empty.

    `texts` are text files and tables that were not read, and `facts` is the content of the image's JSON. Paths are
    relative to the dataset's folder.
    """
    folder, slash, name = image.rpartition("/")
    stem = os.path.splitext(name)[0]
    if facts:
        return f"The fields of '{stem}.json' are {', '.join(list(_fields(facts))[:12])}. Set `caption` to one of them"
    own = [path for path in sorted(texts) if _is_of(path.rpartition("/")[2], stem) and not path.lower().endswith(_LISTS)]
    if here := next((path for path in own if path.rpartition("/")[0] == folder), None):
        return f"'{here}' was not read. Set `captions: ['{here[len(folder + slash + stem) :]}']` to read such files"
    if own:
        return f"'{own[0]}' is in another folder. Put texts beside the images, or set `table` to a list of images and texts"
    head, _, number = stem.rpartition(".")
    if number.isdigit() and (several := next((path for path in texts if path in _named(folder + slash + head)), None)):
        fix = "To read documents, put their files into tars, and read these with `webdataset` or `interleaved_tars`"
        return f"'{several}' may belong to several images, such as '{name}', and here each image is a row. {fix}"
    if table := min((path for path in texts if path.lower().endswith(TABLES)), default=None):
        return f"If '{table}' lists files and captions, set `table: '{table}'` to read it"
    if texts:
        return f"'{min(texts)}' matches no image. Give texts the names of images, or set `table` to a list of images and texts"
    return None


def in_sibling(image: str, root: str) -> Iterator[str]:
    """Yield the paths of texts that have the image's name but are in a folder beside `root`. Paths are relative to `root`.

    For the image `a.jpg` in `root`, such a path is `../labels/a.txt`.
    """
    parent, inside = os.path.dirname(root), os.path.splitext(os.path.relpath(image, root))[0]
    for folder in sorted(os.listdir(parent))[:100]:
        for ending in (one for one in TEXTS if one not in _LISTS):
            path = os.path.join(parent, folder, inside + ending)
            if os.path.isfile(path) and os.path.join(parent, folder) != root:
                yield os.path.relpath(path, root)


def _named(stem: str) -> list[str]:
    return [stem + ending for ending in TEXTS]


def _is_of(name: str, stem: str) -> bool:
    return name.lower().startswith(stem.lower()) and not name[len(stem) :][:1].isalnum()


def _fields(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, value in facts.items():
        yield from (f"{name}.{inner}" for inner in value) if isinstance(value, Mapping) and value else (name,)
