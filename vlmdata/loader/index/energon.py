"""Reads the files in `.nv-meta` of a Megatron Energon dataset: split.yaml lists the tars of each split, such as train and val.

Format: https://nvidia.github.io/Megatron-Energon, "Dataset Format on Disk". Names and keys in the file are untrusted.
"""

import os
from dataclasses import dataclass
from typing import Any

import yaml

from vlmdata.endpoint import check_answers
from vlmdata.errors import InputError

FOLDER = ".nv-meta"
FILES = ("split.yaml", "split.json")  # JSON is a subset of YAML
DESCRIPTION = "dataset.yaml"
DEFAULT = "train"
_MOST_BYTES = 1 << 25  # largest file that is read; 100,000 excluded samples take a tenth of this size


@dataclass(frozen=True)
class Splits:
    """The content of a split file. `parts` maps the name of each split to its tars, relative to the dataset's folder.

    `exclude` lists tars to leave out, or samples as `TAR/KEY`. Entries may contain braces, as in `{000..123}`.
    """

    file: str
    parts: dict[str, list[str]]
    exclude: list[str]


def find_split_file(folder: str) -> str | None:
    """Return the path or address of a folder's split file, or None if the folder has none."""
    for name in FILES:
        file = f"{folder.rstrip('/')}/{FOLDER}/{name}"
        if "://" not in folder:
            if os.path.isfile(file):
                return file
            continue
        import fsspec

        files, path = fsspec.core.url_to_fs(file)
        check_answers(files, folder)
        if files.isfile(path):
            return file
    return None


def read_splits(file: str) -> Splits:
    """Return the content of a split file. Raises ValueError with the name of the file if its format is wrong."""
    tree = _tree(file)
    parts: Any = tree.get("split_parts") if isinstance(tree, dict) else None
    exclude: Any = (tree.get("exclude") or []) if isinstance(tree, dict) else None
    if not (isinstance(parts, dict) and all(isinstance(name, str) and _is_names(names) for name, names in parts.items())):
        raise InputError(f"{file}: `split_parts` must list the tars of each split, as in {{train: [shard_000.tar]}}")
    if not _is_names(exclude):
        raise InputError(f"{file}: `exclude` must list tars and samples, as in [shard_004.tar, shard_001.tar/000032]")
    return Splits(file, parts, exclude)


def read_description(folder: str) -> dict[str, Any] | None:
    """Return the content of a folder's dataset.yaml, or None if there is none. Raises ValueError if it is not a mapping."""
    file = f"{folder.rstrip('/')}/{FOLDER}/{DESCRIPTION}"
    try:
        tree = _tree(file)
    except FileNotFoundError:
        return None
    if not isinstance(tree, dict):
        raise InputError(f"{file} must be a mapping, as in {{sample_type: ..., field_map: ...}}")
    return tree


def _tree(file: str) -> Any:
    """Return the content of a YAML file. Raises ValueError with the name of the file if it cannot be read."""
    try:
        return yaml.load(_text(file), yaml.CSafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as YAML: {' '.join(str(error).split())[:200]}") from None


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _text(file: str) -> str:
    if "://" in file:
        import fsspec

        with fsspec.open(file, "rb") as source:
            data = source.read(_MOST_BYTES + 1)
    else:
        with open(file, "rb") as source:
            data = source.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"the file is larger than the limit of {_MOST_BYTES:,} bytes")
    return str(data, "utf-8")
