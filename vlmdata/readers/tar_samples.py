"""Read the samples of a tar: plain or compressed, local or remote."""

from __future__ import annotations

import bisect
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from vlmdata.loader.index.grouping import SampleMembers, TarContents, contents, key_of
from vlmdata.loader.index.tar import BLOCK, Link, Member, Read, TarDamage, members
from vlmdata.readers.find_files import File, is_remote
from vlmdata.readers.open_file import UNREADABLE, compression, opened, raw_file
from vlmdata.readers.plain_rows import bad_record, place, with_place
from vlmdata.readers.strings import clean, is_blank

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
RowOf = Callable[[SampleMembers, str | None, Read], dict[str, Any] | None]
RowsOf = Callable[[SampleMembers, str | None, Read], Iterable[dict[str, Any]]]
MAX_CAPTION = 1 << 20  # largest caption, in bytes
MAX_JSON = 1 << 24  # largest JSON, in bytes
MAX_IMAGE = 1 << 30  # largest image, in bytes


class BadSample(ValueError):
    """The error for a sample that cannot become a row. The message says why, and `reason` goes into the ledger."""

    def __init__(self, why: str, reason: str = "bad_record") -> None:
        super().__init__(why)
        self.reason = reason


def tar_rows(
    path: str,
    name: str,
    row_of: RowOf,
    *,
    longer_names: bool = True,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each sample of a tar, then a dropped row for each damaged range of bytes and each unresolved link.

    A sample without a text is dropped as `bad_record` if its caption may be in a damaged range or behind an unresolved link.
    `row_of` returns the row of a sample, or None for no row, and may raise BadSample. Its arguments are the sample, the path
    of the tar, and the function that reads the tar. The path is None if rows cannot refer to bytes in the tar, as in a
    compressed tar. `longer_names` is as in `contents`.
    """

    def rows_of(sample: SampleMembers, blob: str | None, read: Read) -> list[dict[str, Any]]:
        row = row_of(sample, blob, read)
        return [] if row is None else [row]

    return sample_rows(path, name, rows_of, longer_names=longer_names)


def sample_rows(path: str, name: str, rows_of: RowsOf, *, longer_names: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the rows of each sample of a tar as `tar_rows` does, for samples that may have several rows."""
    name = clean(name)
    with ExitStack() as stack:
        found, read, is_plain = read_tar(path, stack, longer_names=longer_names)
        lost = sorted([*found.damages, *map(_lost_link, found.links)])
        linked = {key_of(link.name) for link in found.links}
        blob = path if is_plain and path == clean(path) else None  # a row cannot hold a path that is not UTF-8
        for sample in found.samples:
            own_id = f"{name}/{sample.key}"
            try:
                for row in rows_of(sample, blob, read):
                    if lost and not _has_text(row) and (sample.key in linked or _is_beside(lost, sample)):
                        raise BadSample(
                            "it has no text. The text may be in a damaged range nearby or behind an unresolved link"
                        )
                    where = place(name, byte=sample.members[0][1].header)
                    yield with_place({"id": own_id, **row}, where, f"sample {sample.key!r} cannot be used")
            except BadSample as error:
                byte = sample.members[0][1].header
                yield bad_record(name, f"sample {sample.key!r}: {error}", byte=byte, reason=error.reason, id=own_id)
        for one in lost:
            yield bad_record(name, one.why, byte=one.offset)


def _lost_link(link: Link) -> TarDamage:
    kind, option = ("symbolic", "--dereference") if link.is_symbolic else ("hard", "--hard-dereference")
    why = f"{link.name!r} is a {kind} link to {link.target!r}, which is not in the tar. Write the tar with {option}"
    return TarDamage(link.header, link.end, why)


def _has_text(row: dict[str, Any]) -> bool:
    return bool(row.get("drop")) or any(text and not is_blank(text["text"]) for text in row.get("texts") or ())


def _is_beside(lost: list[TarDamage], sample: SampleMembers) -> bool:
    """Say whether a member of the sample is next to one of the damaged ranges `lost`, which are sorted."""
    for _, member in sample.members:
        at = bisect.bisect_left(lost, (member.header, 0, ""))
        if any(one.end == member.header or one.offset == member.end for one in lost[max(at - 1, 0) : at + 1]):
            return True
    return False


def read_tar(path: str, stack: ExitStack, *, longer_names: bool = True) -> tuple[TarContents, Read, bool]:
    """Return a tar's contents, a function that reads `size` bytes at an offset, and whether the tar is uncompressed.

    Offsets refer to the decompressed tar. `stack` closes the file.
    """
    found: list[Any] = []
    read, length, is_plain, problem = _open(path, stack)
    try:
        for one in members(read, length):
            found.append(one)  # noqa: PERF402  list() would lose the members before an error
    except UNREADABLE as error:
        problem = _words(error)
    if problem is None and not length:
        problem = "the file is empty"
    if problem is not None:
        cut = found.pop() if found and isinstance(found[-1], TarDamage) and found[-1].end == length else None
        found.append(TarDamage(cut.offset if cut else length, length, problem))
    elif found and isinstance(last := found[-1], Member) and last.end > length:
        found.append(
            TarDamage(last.end, last.end, f"the file ends within the last block of {last.name!r}, so it may be cut off")
        )
    if any(isinstance(one, Link) for one in found):
        found = _linked(found)
    return contents(found, longer_names=longer_names), read, is_plain


def _linked(found: Sequence[Member | Link | TarDamage]) -> list[Member | Link | TarDamage]:
    """Return the entries of a tar with links replaced by the members that they name.

    A hard link names an earlier member, as in tar, and a symbolic link names any member. Names are looked up only in the tar,
    and no file is opened.
    """
    known: dict[str, Member] = {}
    done: list[Member | Link | TarDamage] = []
    for one in found:
        one = _member_of(one, known) if isinstance(one, Link) else one
        if isinstance(one, Member):
            known[os.path.normpath(one.name)] = one
        done.append(one)
    return [_member_of(one, known) if isinstance(one, Link) and one.is_symbolic else one for one in done]


def _member_of(link: Link, known: Mapping[str, Member]) -> Member | Link:
    folder = os.path.dirname(link.name) if link.is_symbolic else ""
    target = known.get(os.path.normpath(os.path.join(folder, link.target)))
    return link if target is None else Member(link.name, link.header, target.offset, target.size, link.end)


def member_bytes(read: Read, member: Member, limit: int) -> bytes:
    """Return a member's bytes. Raises BadSample, with the reason `too_large`, if it has more than `limit` bytes."""
    if member.size > limit:
        raise BadSample(f"member {member.name!r} has {member.size} bytes, more than the limit of {limit}", "too_large")
    return read(member.offset, member.size)


def sample_json(member: Member | None, read: Read) -> Any:
    """Return a sample's parsed JSON, or None if `member` is None. Raises BadSample if the JSON is invalid or too large."""
    if member is None:
        return None
    data = member_bytes(read, member, MAX_JSON)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadSample(f"its JSON cannot be read: {_words(error)}") from None


def _open(path: str, stack: ExitStack) -> tuple[Read, int, bool, str | None]:
    """Return a tar's read function, its length, whether it is uncompressed, and the error that occurred, or None."""
    file: Any
    try:
        file = stack.enter_context(raw_file(path))
        is_plain = compression(file.read(6)) is None
    except UNREADABLE as error:
        return lambda offset, size: b"", 0, True, _words(error)
    problem = None
    if is_plain and not is_remote(path):
        number = file.fileno()
        return lambda offset, size: os.pread(number, size, offset), os.fstat(number).st_size, True, None
    if not is_plain:
        file, problem = _unpacked(path, stack)
    length = file.seek(0, os.SEEK_END)

    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    return read, length, is_plain, problem


def _unpacked(path: str, stack: ExitStack) -> tuple[Any, str | None]:
    """Return a decompressed copy of a file, and the error that cut the copy short, or None if the copy is complete."""
    copy = stack.enter_context(tempfile.TemporaryFile(prefix="vlmdata-"))  # noqa: SIM115  the caller's stack closes it
    problem = None
    for piece in (1 << 20, BLOCK):  # damage loses the whole piece, so a damaged file is read again in small pieces
        copy.seek(0)
        copy.truncate()
        with opened(path) as stream:
            try:
                shutil.copyfileobj(stream, copy, piece)
                return copy, None
            except UNREADABLE as error:
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # the temporary disk is full
                    raise
                problem = _words(error)
    return copy, problem


def _words(error: BaseException) -> str:
    """Return an error's message without the path that Python adds, because the row's `place` names the file."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()) or type(error).__name__


def names_within(files: Sequence[File]) -> list[str]:
    """Return the files' paths relative to their common folder, so that the names stay the same if the folder moves."""
    paths = [file.path.partition("://")[2] or file.path for file in files]
    base = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return [os.path.relpath(path, base) if base else path for path in paths]
