"""Checks where a run would write: the folder or bucket, what is in it already, and whether it can be written."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmdata.arguments import check_protocol
from vlmdata.engine.output.manifest import MANIFEST
from vlmdata.engine.partitions import plan
from vlmdata.engine.store.folder_store import existing_parent
from vlmdata.engine.store.open_store import open_store
from vlmdata.errors import RecipeError
from vlmdata.home_folder import at_home
from vlmdata.preflight.findings import Findings
from vlmdata.step import Source

OWN = {"work", "forgotten", MANIFEST}  # a folder that has one of these names is a dataset, finished or not
IGNORED = {"lost+found"}  # every new disk has this folder
WRITTEN = ("00000.tar", "index.parquet", MANIFEST, "report.html", "README.md", "ledger/00000.parquet")  # files of a dataset
EXPANDED = "*?[]{}"  # signs that readers of tars expand, as in `{00000..00009}.tar`


def check_output(out: str | Path, source: Source | None, findings: Findings, *, is_deep: bool) -> None:
    """Add what is wrong with the output folder `out`. With `is_deep`, write, read and delete a small file there.

    Without `is_deep`, nothing is requested from an object store.
    """
    text = str(out)
    if any(ord(sign) < 32 for sign in text):
        raise RecipeError(f"--out {text!r}: the name has a control character. Choose another name")
    if found := sorted(set(text) & set(EXPANDED)):
        findings.advise(f"--out {text}: readers of tars expand {' '.join(found)} in names. Choose a name without them")
    if is_bucket(text):
        check_protocol(text)
        if text.partition("://")[0] in ("http", "https"):
            raise RecipeError(
                f"--out {text}: no file can be written over HTTP. Give a folder, or a store such as s3://bucket/name"
            )
        if is_deep:
            open_store(text)  # writes, reads and deletes a small file
            _check_plan(text, source)
            findings.facts.append(f"{text}: a file could be written, read and deleted")
        return
    folder = Path(text.removeprefix("file://")).absolute()
    _check_folder(folder, text)
    _check_apart(folder, text, source)
    _check_plan(text, source)
    if is_deep:
        _probe(folder, text)
        findings.facts.append(f"{text}: a file could be written, read and deleted")


def is_bucket(out: str | Path) -> bool:
    """Return whether `out` is the address of an object store and not a folder."""
    return "://" in str(out) and not str(out).startswith("file://")


def _check_folder(folder: Path, text: str) -> None:
    parent = existing_parent(folder)
    if not parent.is_dir():
        what = "is a file" if parent == folder else f"cannot be created, because {parent} is not a folder"
        raise RecipeError(f"--out {text} {what}. Give the path of a new folder")
    if not shutil.disk_usage(parent).total:
        raise RecipeError(f"--out {text} cannot be written: {parent} is not on a disk. Give another --out")
    for name in ("", "work"):  # a dataset that another user built may have its own folder for the work
        inside = parent / name if parent == folder else parent
        if inside.is_dir() and not os.access(inside, os.W_OK | os.X_OK):
            raise RecipeError(
                f"--out {text} cannot be written: {inside} does not allow it. Change its permissions, or give another --out"
            )
    if parent != folder:
        return
    names = sorted(name for name in os.listdir(folder) if not name.startswith(".") and name not in IGNORED)
    if names and not OWN & set(names):
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        raise RecipeError(f"--out {text} holds other files ({names[0]}{more}). Give a new or empty folder")


def _check_apart(folder: Path, text: str, source: Source | None) -> None:
    """Raise RecipeError if the source would read the files that the run writes, because they are in a folder that it reads."""
    if source is None:
        return
    given: Any = getattr(source, "path", None)
    for path in [given] if isinstance(given, str) else given if isinstance(given, list | tuple) else []:
        if not isinstance(path, str) or "://" in path or not os.path.isdir(at_home(path)):
            continue
        if folder.resolve().is_relative_to(Path(at_home(path)).resolve()) and _reads_datasets(source, type(given)):
            raise RecipeError(
                f"--out {text} is inside {path}, so the source would read the files of the dataset as its own. "
                "Give a folder outside of it"
            )


def _reads_datasets(source: Source, kind: type) -> bool:
    """Return whether a source would list files with the names that a run writes. `kind` is the type of its `path`."""
    with tempfile.TemporaryDirectory(prefix="vlmdata-check-") as folder:
        for name in WRITTEN:
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.touch()
        alone: Any = replace(source, path=folder if kind is str else kind([folder]))  # type: ignore[call-arg]
        try:
            return bool(alone.files())
        except RecipeError:
            return False


def _check_plan(text: str, source: Source | None) -> None:
    store = open_store(text, probe=False)
    made = plan.load(store)
    if source is not None and made is not None and made.source != plan.source_identity(source):
        raise RecipeError(plan.other_source(store, source))


def _probe(folder: Path, text: str) -> None:
    probe = existing_parent(folder) / f".vlmdata-probe-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"probe")
        is_same = probe.read_bytes() == b"probe"
    except OSError as error:
        raise RecipeError(f"--out {text} cannot be written: {error.strerror} ({probe.parent})") from None
    finally:
        probe.unlink(missing_ok=True)
    if not is_same:
        raise RecipeError(f"--out {text}: a file that was just written reads differently. Give a folder on another disk")
