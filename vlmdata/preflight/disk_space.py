"""Estimates the disk space that a run needs, and compares it with the space that is free."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from vlmdata.engine.store.folder_store import existing_parent
from vlmdata.errors import RecipeError
from vlmdata.preflight.findings import Findings
from vlmdata.preflight.first_rows import image_folder
from vlmdata.preflight.output_place import is_bucket
from vlmdata.readers import lists
from vlmdata.readers.find_files import File, find, is_remote
from vlmdata.readers.image_files import IMAGES
from vlmdata.readers.lists import ListFormat
from vlmdata.readers.open_file import COMPRESSED, seekable
from vlmdata.sizes import megabytes
from vlmdata.sources.files import Files
from vlmdata.step import Source, Step
from vlmdata.steps.resize import Resize

BYTES_PER_PIXEL = 0.28  # LAION-5B takes 240 TB for 5.85 billion images of 384 x 384 pixels (img2dataset's README)
ORIGINAL_BYTES = 100_000  # an image as fetched; a guess, because lists differ by a factor of ten
COPIES = 2  # of each image: in work/ and in a tar
GROWTH = 2  # most by which `resize` makes a small image larger; 1.8 with small JPEG files of low quality
COUNTED_FILES = 20  # files whose rows are counted; the others have as many rows for their bytes
SAMPLED_BYTES = 1 << 20  # beginning of a text list, whose lines are counted
SURE = 3.0  # a run stops before work only if the estimate is this many times the free space, because it is rough


def check_disk(
    out: str | Path | None,
    source: Source,
    steps: tuple[Step, ...],
    findings: Findings,
    *,
    limit: int | None = None,
    image_bytes: float | None = None,
) -> None:
    """Add the estimate, and a note or a mistake if the disk of `out` has less free space.

    `image_bytes` is the mean size of the sampled images, if there is a sample. Nothing is added if the number of rows is not
    known, which is so for compressed lists and for sources that are read over the network.
    """
    if not source.by_address:
        need, how = _of_bytes(source, steps), "the source's files, with images in work/ and in tars"
    else:
        rows = count_rows(source)
        if rows is None:
            return
        rows = rows if limit is None else min(rows, limit)
        each = image_bytes or typical_bytes(steps)
        need = int(rows * each * COPIES)
        measured = "the mean of the sample" if image_bytes else "a typical size"
        how = f"{rows:,} rows of {megabytes(int(each))} ({measured}), in work/ and in tars"
    if not need:
        return
    estimate = f"estimate: the dataset takes at most about {megabytes(need)} while it is built: {how}"
    if out is None or is_bucket(out):
        findings.facts.append(estimate)
        return
    folder = existing_parent(Path(str(out).removeprefix("file://")).absolute())
    free = shutil.disk_usage(folder).free
    findings.facts.append(f"{estimate}; {megabytes(free)} are free")
    short = f"--out {out}: the disk has {megabytes(free)} free. {estimate[0].upper()}{estimate[1:]}"
    is_resumed = (Path(str(out)) / "work").is_dir()  # what is there already is part of the estimate
    if need > SURE * free and not is_resumed:
        raise RecipeError(f"{short}. Free some space, give another --out, or build fewer rows with --limit")
    if need > free:
        findings.notes.append(f"{short}. Rows that are dropped need less")


def typical_bytes(steps: tuple[Step, ...]) -> float:
    """Return the size of a stored image in bytes that the recipe's `resize` typically gives."""
    rule = next((step for step in steps if isinstance(step, Resize)), None)
    return ORIGINAL_BYTES if rule is None or rule.mode == "no" else min(ORIGINAL_BYTES, BYTES_PER_PIXEL * rule.size**2)


def count_rows(source: Source) -> int | None:
    """Return the number of rows of a local list: exact for up to 20 Parquet files, else estimated. None: not known."""
    layout = ListFormat(format=getattr(source, "format", "auto"))
    rows = counted = 0
    files = source.files()
    for path, size in files[:COUNTED_FILES]:
        if "://" in path or not os.path.isfile(path) or path.lower().endswith(tuple(COMPRESSED)):
            return None
        kind = lists.format_of(path, layout)
        if kind == "parquet":
            with seekable(path) as stream:
                parquet = lists.open_parquet(stream, path)
                rows += parquet.metadata.num_rows if parquet else 0
        elif kind == "json":
            return None
        else:
            with open(path, "rb") as file:
                head = file.read(SAMPLED_BYTES)
            rows += round(head.count(b"\n") * size / max(1, len(head)))
        counted += size
    total = sum(size for _, size in files)
    return round(rows * total / counted) if counted else 0


def _of_bytes(source: Source, steps: tuple[Step, ...]) -> int:
    sizes = [size for _, size in [*source.files(), *_named_images(source)]]
    rule = next((step for step in steps if isinstance(step, Resize)), None)
    if rule is None:
        return sum(sizes)
    largest = 0 if rule.mode == "no" else int(BYTES_PER_PIXEL * rule.size**2)
    return COPIES * sum(max(size, min(GROWTH * size, largest)) for size in sizes)


def _named_images(source: Source) -> list[File]:
    """Return the files of the folder in which a source looks for the images that its list names. They are packed too."""
    folder = source.path if isinstance(source, Files) and source.table else image_folder(source)
    if not isinstance(folder, str) or is_remote(folder):
        return []
    try:
        return find(folder, IMAGES)
    except RecipeError:  # no file of the folder has the ending of an image
        return []
