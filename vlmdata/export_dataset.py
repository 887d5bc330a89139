"""Exports a finished dataset to another format, such as Parquet with image columns. `exports/` holds the formats."""

from __future__ import annotations

import importlib
import os
import shutil
import uuid
from pathlib import Path

from vlmdata import exports
from vlmdata.arguments import check_choice, check_path
from vlmdata.dataset import read_manifest
from vlmdata.engine.store.open_store import open_store
from vlmdata.extras import check_installed
from vlmdata.step import RecipeError


def export(out: str | Path, target: str | Path, *, to: str = "parquet") -> int:
    """Write a finished dataset in another format to a new folder, and return the number of samples.

    `to` is "parquet" (with image columns), "hf" (for `datasets.load_from_disk`), "folder" (plain files), "messages"
    (conversations) or "tars" (written by webdataset). The folder appears only when it is complete. Raises RecipeError if the target
    exists, if `out` is not a finished dataset, if a package for the format is missing, or if `to` is "messages" and a sample is
    not a conversation.
    """
    check_path(out=out, target=target)
    check_choice(exports.names(), to=to)
    if "://" in str(target):
        raise RecipeError(f"{target}: export writes to a folder on this machine, not to an address")
    exporter = importlib.import_module(f"vlmdata.exports.{to}")
    check_installed(getattr(exporter, "PACKAGES", ()), f"the export format {to}")
    target = Path(target).absolute()
    if target.exists():
        raise RecipeError(f"{target} already exists. Name a new folder")
    manifest = read_manifest(out)
    store = open_store(out, probe=False)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    draft.mkdir(parents=True)
    try:
        if manifest["kept"]:
            exporter.write(store, draft, manifest["recipe"]["shards"]["layout"])
    except RecipeError:
        shutil.rmtree(draft)
        raise
    os.rename(draft, target)
    return manifest["kept"]
