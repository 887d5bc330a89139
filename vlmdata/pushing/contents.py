"""The files of a dataset or of an export that a push uploads. `work/`, locks and drafts never travel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from vlmdata.audit import audit
from vlmdata.card import CARD
from vlmdata.dataset import read_manifest
from vlmdata.engine.output.manifest import MANIFEST
from vlmdata.engine.partitions.tombstones import FOLDER
from vlmdata.step import RecipeError

TAG = "vlmdata"  # in the metadata of every card
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


def contents(out: str | Path, most: int) -> list[LocalFile]:
    """Return the files to upload, sorted by name: those of a finished dataset, or all files of an export with a card.

    Of a dataset, these are the files that the manifest lists, the manifest, and the tombstones. Raises RecipeError for an
    address, an unfinished or damaged dataset, a folder that is neither, or more than `most` files.
    """
    if "://" in str(out) and not str(out).startswith("file://"):
        advice = "Copy it without its folder work/ to a folder first"
        raise RecipeError(f"{out}: push reads a folder on this machine, not an address. {advice}")
    folder = Path(str(out).removeprefix("file://"))
    if is_export(folder):
        paths = [path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(folder))]
        _check_number(out, len(paths), most, "Export a dataset with more samples in each tar (shards.samples)")
        return sorted((_local(folder, path) for path in paths), key=lambda file: file.name)
    if folder.is_dir() and not (folder / MANIFEST).exists() and not (folder / "work").exists():
        raise RecipeError(
            f"{out} is neither a finished dataset nor an export with a card. Push the folder that `vlmdata run` wrote, or an "
            f"export to one of {CARD_FORMATS}"
        )
    manifest = read_manifest(out)
    _check_number(out, len(manifest["files"]), most, "Build it with more samples in each tar (shards.samples)")
    if faults := audit(out):
        raise RecipeError(f"{out} is damaged: {faults[0]}. Restore the file, or build the dataset again")
    files = [LocalFile(name, folder / name, facts["bytes"], facts["sha256"]) for name, facts in manifest["files"].items()]
    others = [folder / MANIFEST, *sorted((folder / FOLDER).glob("[0-9]*.json"))]
    return sorted([*files, *(_local(folder, path) for path in others)], key=lambda file: file.name)


def is_export(folder: Path) -> bool:
    """Return whether a folder is an export with a card that vlmdata wrote."""
    if (folder / MANIFEST).exists() or (folder / "work").exists():
        return False
    try:
        return is_own_card((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False


def is_own_card(text: str) -> bool:
    """Return whether the text of a README.md is a card of vlmdata, by the tag in its metadata."""
    parts = text.split("---\n", 2)
    try:
        head = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except yaml.YAMLError:
        return False
    tags = head.get("tags") if isinstance(head, dict) else None
    return isinstance(tags, list) and TAG in tags


def _check_number(out: str | Path, count: int, most: int, fix: str) -> None:
    if count > most:
        raise RecipeError(f"{out} has {count:,} files, and a commit on the Hub takes at most {most:,}. {fix}")


def _local(folder: Path, path: Path) -> LocalFile:
    return LocalFile(path.relative_to(folder).as_posix(), path, path.stat().st_size)


def _is_hidden(path: Path) -> bool:
    return path.parts[0] not in HIDDEN and any(part.startswith(".") for part in path.parts)
