"""The samples of a tar with their bytes within reach, plain or compressed, local or remote."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from vlmdata.intake.find import File, is_remote
from vlmdata.intake.opened import UNREADABLE, compression, raw_file, seekable
from vlmdata.intake.pairs import json_object
from vlmdata.intake.rows import reject
from vlmdata.loader.tar import TarDamage, TarSample, members, samples

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
Read = Callable[[int, int], bytes]


def tar_samples(path: str) -> Iterator[tuple[TarSample, Read, bool] | str]:
    """Yield each sample, a function (offset, size) that reads the tar, and whether the tar is plain: bytes can stay in it.

    Of a damaged tar come the samples that lie whole before the damage, then what is wrong with it, as a string.
    """
    with ExitStack() as stack:
        found, damage = [], None
        try:
            read, length, is_plain = _open(path, stack)
            if not length:
                raise TarDamage(0, "the file is empty")
            for member in members(read, length):
                found.append(member)  # noqa: PERF402  a list() would lose what came before the damage
        except (TarDamage, *UNREADABLE) as error:
            damage = f"{os.path.basename(path)}: {' '.join(str(error).split())}"
        for sample in samples(found):
            yield sample, read, is_plain
        if damage is not None:
            yield damage


def tar_rows(path: str, name: str, row_of: Callable[[TarSample, str | None, Read], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each sample of a tar, and one that is rejected for its damage.

    `row_of` gets the sample, the path that images may stay in (None for a compressed tar) and what reads the tar.
    """
    for found in tar_samples(path):
        if isinstance(found, str):
            yield reject({"id": f"{name}\n{found}", "extra": json_object({"record": found})}, "bad_record")
            continue
        sample, read, is_plain = found
        yield {"id": f"{name}/{sample.key}", **row_of(sample, path if is_plain else None, read)}


def _open(path: str, stack: ExitStack) -> tuple[Read, int, bool]:
    raw = stack.enter_context(raw_file(path))
    is_plain = compression(raw.read(6)) is None
    if is_plain and not is_remote(path):
        number = raw.fileno()
        return lambda offset, size: os.pread(number, size, offset), os.fstat(number).st_size, True
    file: Any = raw if is_plain else stack.enter_context(seekable(path))
    length = file.seek(0, os.SEEK_END)

    def read(offset: int, size: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    return read, length, is_plain


def names_within(files: Sequence[File]) -> list[str]:
    """Return the files' paths within the folder that holds them all: names that stay when the folder moves."""
    paths = [file.path.partition("://")[2] or file.path for file in files]
    base = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return [os.path.relpath(path, base) if base else path for path in paths]
