"""The draft of an export: a hidden folder beside the target, with the files, and a record for each shard that is finished."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.step import RecipeError

LEFT_OUT = "left_out.log"  # in the target: key and reason of each sample that the format cannot hold; not a name of a data file
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of a full disk, which do not name the file
COPIED = 1 << 20  # bytes that are copied at once


@dataclass(frozen=True)
class ShardRecord:
    """A shard that is completely in the draft."""

    number: int
    name: str
    samples: int  # number of written samples
    left_out: list[tuple[str, str]]  # key and reason of each sample that the format cannot hold
    notes: dict[str, Any]  # what `write_shard` returned


class Draft:
    """The folders of a draft, and the records of its finished shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = folder / "files"  # becomes the target
        self._parts, self._records = folder / "parts", folder / "records"

    def make(self) -> None:
        """Create the folders that do not exist. Records without files belong to a draft that was published: remove them."""
        if not self.files.exists():
            for path in (self._parts, self._records):
                shutil.rmtree(path, ignore_errors=True)
        for path in (self.files, self._parts, self._records):
            path.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """Write one of many small files, such as an image. Its folder is created if it does not exist."""
        path = self.files / name
        try:
            path.write_bytes(data)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def part(self, number: int) -> Path:
        """Return the path for what a shard adds to a file that all shards share. `finish` joins these parts."""
        return self._parts / f"{number:06d}"

    def join(self, name: str, count: int, *, first: bytes = b"", between: bytes = b"", last: bytes = b"") -> None:
        """Write the parts of `count` shards to one file of the target, in order. An empty part adds nothing.

        `first` and `last` are written before and after all parts, and `between` separates parts that are not empty.
        """
        with (self.files / name).open("wb") as joined:
            joined.write(first)
            is_first = True
            for number in range(count):
                with self.part(number).open("rb") as part:
                    if os.fstat(part.fileno()).st_size:
                        joined.write(b"" if is_first else between)
                        shutil.copyfileobj(part, joined, COPIED)
                        is_first = False
            joined.write(last)

    def record(self, number: int) -> ShardRecord | None:
        """Return the record of a shard, or None if the shard is not finished."""
        try:
            found = json.loads(self._record(number).read_bytes())
        except FileNotFoundError:
            return None
        return ShardRecord(number, found["name"], found["samples"], [(k, why) for k, why in found["left_out"]], found["notes"])

    def add_record(self, found: ShardRecord) -> None:
        """Record that a shard is finished."""
        record = {"name": found.name, "samples": found.samples, "left_out": found.left_out, "notes": found.notes}
        path = self._record(found.number)
        path.with_suffix(".new").write_text(json.dumps(record))
        os.replace(path.with_suffix(".new"), path)

    def records(self, count: int) -> Iterator[ShardRecord]:
        """Yield the records of all shards, in order. They are read from disk, one at a time."""
        for number in range(count):
            record = self.record(number)
            assert record is not None, f"shard {number} has no record"
            yield record

    def write_left_out(self, count: int) -> int:
        """List the samples that the format cannot hold in left_out.log, if there are any, and return their number."""
        number = 0
        with (self.folder / LEFT_OUT).open("w", encoding="utf-8") as file:
            for record in self.records(count):
                file.writelines(f"{key}\t{reason}\n" for key, reason in record.left_out)
                number += len(record.left_out)
        if number:
            os.replace(self.folder / LEFT_OUT, self.files / LEFT_OUT)
        return number

    def publish(self, target: Path) -> None:
        """Give the files their final name, and remove the rest of the draft. Raises RecipeError if the target exists."""
        if os.path.lexists(target):
            raise RecipeError(_exists(target))
        os.rename(self.files, target)
        self.remove()

    def remove(self) -> None:
        """Remove the draft."""
        shutil.rmtree(self.folder)

    def _record(self, number: int) -> Path:
        return self._records / f"{number:06d}.json"


@contextlib.contextmanager
def open_draft(target: Path, fingerprint: str) -> Iterator[Draft]:
    """Lock the draft of an export for the block. Drafts of other exports to this target are removed, unless they are in use.

    `fingerprint` identifies the dataset, the format and the options. So a draft is continued only by the same export. Raises
    RecipeError if the target exists, or if another process is writing the same draft.
    """
    draft = Draft(target.with_name(_prefix(target) + fingerprint))
    check_target(target)
    remove_drafts(target, but=draft.folder)
    with LocalStore(draft.folder).alone("lock", _refusal(target)):
        if os.path.lexists(target):  # another process has finished it by now
            draft.remove()
        check_target(target)
        try:
            yield draft
        except OSError as error:
            if error.errno in FULL and error.filename is None:
                error.filename = str(target)
            raise


def check_target(target: Path) -> None:
    """Raise RecipeError if the target exists. What a killed export left beside it is removed."""
    if os.path.lexists(target):
        remove_drafts(target)
        raise RecipeError(_exists(target))


def remove_drafts(target: Path, *, but: Path | None = None) -> None:
    """Remove all drafts of exports to this target, except `but` and those that are in use."""
    for path in sorted(target.parent.glob(f"{glob.escape(_prefix(target))}*")) if target.parent.is_dir() else []:
        if path != but:
            with contextlib.suppress(RecipeError), LocalStore(path).alone("lock", _refusal(target)):
                shutil.rmtree(path)


def _exists(target: Path) -> str:
    what = " as a link to a place that does not exist" if target.is_symlink() and not target.exists() else ""
    return f"{target} already exists{what}. Name a new folder"


def _prefix(target: Path) -> str:
    return f".{target.name}.export-"


def _refusal(target: Path) -> Callable[[str], None]:
    def refuse(holder: str) -> None:
        raise RecipeError(f"{target} is being written by another export ({holder}). Wait for its end, or name another folder")

    return refuse
