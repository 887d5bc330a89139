"""The files of a dataset or of an export that a push uploads. `work/`, locks and drafts never travel."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlmdata.audit import audit
from vlmdata.card import CARD
from vlmdata.dataset import read_manifest
from vlmdata.engine.output.manifest import MANIFEST
from vlmdata.engine.partitions.tombstones import FOLDER
from vlmdata.loader.index.find_tars import first_outside
from vlmdata.pushing.identity import is_own_card
from vlmdata.step import RecipeError

# Names of files that vlmdata writes. A push deletes such files from the repository if they do not exist any more.
OWN = re.compile(
    r"\d{5,}\.tar|index\.parquet|manifest\.json|report\.html|croissant\.json|sizes\.json|(ledger|lookup)/\d{5,}\.parquet"
    r"|data/train-\d{5,}-of-\d{5,}\.parquet|data-\d{5,}-of-\d{5,}\.arrow|state\.json|dataset_info\.json|left_out\.log"
    r"|\d{5,}\.tar\.idx|\.nv-meta/[^/]+|\d{5,}\.parquet|\d{5,}_stats\.json|index\.json|shard\.\d{5,}\.\d{5,}\.mds(\.zstd)?"
)
CARD_FORMATS = "parquet, hf, tars, energon, mds, img2dataset, obelics, or messages with form=parquet"
HIDDEN = (".nv-meta",)  # the only hidden folder that travels: Energon's description of an export


@dataclass(frozen=True)
class LocalFile:
    """A file to upload. `sha256` is None if no manifest lists it."""

    name: str  # in the repository, with forward slashes
    path: Path
    bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class Limits:
    """What the Hub takes. It refuses a folder with more files only when it makes the commit, after the whole upload.

    Sources: https://huggingface.co/docs/hub/storage-limits (August 2026), and for `files` the docstring of HfApi.create_commit.
    """

    files: int = 25_000  # in one commit
    in_folder: int = 10_000  # files, without those in its folders
    bytes: int = 500 * 10**9  # of a file; the Hub advises less than 200 GB


LIMITS = Limits()


def contents(out: str | Path, limits: Limits = LIMITS) -> list[LocalFile]:
    """Return the files to upload, sorted by name: those of a finished dataset, or all files of an export with a card.

    Of a dataset, these are the files that the manifest lists, the manifest, and the tombstones. Raises RecipeError for an
    address, an unfinished or damaged dataset, a folder that is neither, a link to a place outside, a pipe, or what the Hub
    does not take.
    """
    if "://" in str(out) and not str(out).startswith("file://"):
        advice = "Copy it without its folder work/ to a folder first"
        raise RecipeError(f"{out}: push reads a folder on this machine, not an address. {advice}")
    folder = Path(str(out).removeprefix("file://"))
    _check_files(folder, [name for name in (MANIFEST, CARD) if os.path.lexists(folder / name)])  # a pipe would block
    if is_export(folder):
        paths = [path for path in folder.rglob("*") if not _is_folder(path) and not _is_hidden(path.relative_to(folder))]
        names = sorted(path.relative_to(folder).as_posix() for path in paths)
        _check_inside(folder, names, CARD)
        files = [_local(folder, name) for name in names]
        _check_limits(out, files, limits, "Export a dataset")
        return files
    if folder.is_dir() and not (folder / MANIFEST).exists() and not (folder / "work").exists():
        raise RecipeError(
            f"{out} is neither a finished dataset nor an export with a card. Push the folder that `vlmdata run` wrote, or an "
            f"export to one of {CARD_FORMATS}"
        )
    manifest = read_manifest(out)
    records = [path.relative_to(folder).as_posix() for path in (folder / FOLDER).glob("[0-9]*.json")]
    _check_inside(folder, records, MANIFEST)
    files = [LocalFile(name, folder / name, facts["bytes"], facts["sha256"]) for name, facts in manifest["files"].items()]
    files = sorted([*files, *(_local(folder, name) for name in (MANIFEST, *records))], key=lambda file: file.name)
    _check_limits(out, files, limits, "Build it")
    if faults := audit(out):
        raise RecipeError(f"{out} is damaged: {faults[0]}. Restore the file, or build the dataset again")
    return files


def is_export(folder: Path) -> bool:
    """Return whether a folder is an export with a card that vlmdata wrote."""
    if (folder / MANIFEST).exists() or (folder / "work").exists():
        return False
    try:
        return is_own_card((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False


def _check_inside(folder: Path, names: Sequence[str], listed_in: str) -> None:
    """Raise RecipeError for a link to a place outside of the folder, and for what is not a file.

    A folder of a download cache, in which all files are links to one place, counts as inside.
    """
    outside = first_outside(str(folder), names, folder / listed_in)
    if outside is not None:
        fix = "Put the file there, or remove the link"
        raise RecipeError(f"{folder / outside} is a link to a place outside of {folder}, which push does not upload. {fix}")
    _check_files(folder, names)


def _check_files(folder: Path, names: Sequence[str]) -> None:
    for path in (folder / name for name in names):
        if any("\ud800" <= char <= "\udfff" for char in str(path.relative_to(folder))):
            raise RecipeError(f"{folder / ascii(path.name)} has a name that is not UTF-8. Rename or remove it")
        if not path.is_file():
            kind = "a link to a folder or to nothing" if path.is_symlink() else "a folder, a pipe, a socket or a device"
            raise RecipeError(f"{path} is {kind}, not a file. Remove it")


def _check_limits(out: str | Path, files: Sequence[LocalFile], limits: Limits, build: str) -> None:
    """Raise RecipeError for what the Hub does not take. `build` begins the advice: "Build it with more samples ..."."""
    by_folder = Counter(file.name.rpartition("/")[0] for file in files)
    folder, count = max(by_folder.items(), key=lambda item: item[1])
    largest = max(files, key=lambda file: file.bytes)
    fix = f"{build} with more samples in each tar (shards.samples)"
    if count > limits.in_folder:
        where = f"{out}/{folder}" if folder else str(out)
        raise RecipeError(f"{where} has {count:,} files, and a folder on the Hub takes at most {limits.in_folder:,}. {fix}")
    if len(files) > limits.files:
        raise RecipeError(f"{out} has {len(files):,} files, and a commit on the Hub takes at most {limits.files:,}. {fix}")
    if largest.bytes > limits.bytes:
        most, fix = f"{limits.bytes / 10**9:,.0f} GB", f"{build} with fewer samples in each tar (shards.samples)"
        raise RecipeError(
            f"{out}/{largest.name} has {largest.bytes / 10**9:,.0f} GB, and a file on the Hub has at most {most}. {fix}"
        )


def _local(folder: Path, name: str) -> LocalFile:
    return LocalFile(name, folder / name, (folder / name).stat().st_size)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_hidden(path: Path) -> bool:
    return path.parts[0] not in HIDDEN and any(part.startswith(".") for part in path.parts)
