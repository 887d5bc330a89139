"""Builds the index of tars from their headers, in parallel."""

import json
import os
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.arguments import check_bool, check_callable, check_choice, check_whole_or_none, path_of, paths_of, wrong
from vlmdata.errors import InputError, WorkFailed
from vlmdata.loader.index.find_tars import PathLike, TarSet, find_shards
from vlmdata.loader.index.index_file import INDEX, INDEX_FILE, IndexWriter
from vlmdata.loader.index.scan_tar import scan
from vlmdata.sizes import counted, noun

OnError = Literal["raise", "skip"]
_FEW = 4  # shards per process, because starting a process takes as long as reading the headers of three shards
_GROUP_ROWS = 1 << 16


def build_index(
    paths: TarSet | PathLike | Sequence[PathLike],
    *,
    out: str | os.PathLike | None = None,
    workers: int | None = None,
    image_sizes: bool = False,
    on_error: OnError = "raise",
    report: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the index of tars and return its path.

    `paths` is a folder, a tar, a pattern, an address, or a list of these. `out` is by default `index.parquet` in the folder of
    the tars. An index in another folder records where the tars are. `workers` is the number of processes, by default one per
    core. With `image_sizes`, the header of each image is also read, and the index has the size of each image. A truncated or
    damaged tar raises ValueError with the name of the tar and the offset of the damage. With on_error="skip", such a tar causes
    a warning, and its intact samples are indexed. `report(done, shards)` is called after each shard.
    """
    check_whole_or_none(1, workers=workers)
    check_bool(image_sizes=image_sizes)
    check_choice(get_args(OnError), on_error=on_error)
    check_callable(report=report)
    if out is not None:
        out = path_of(out=out)
        if os.path.isdir(out):
            raise wrong("out", "the path of a file, such as index.parquet", out)
    found = paths if isinstance(paths, TarSet) else find_shards(paths_of(paths=paths))
    target = Path(out) if out is not None else _beside(found)
    workers = max(1, min(workers or os.cpu_count() or 1, len(found.names) // _FEW))
    schema = INDEX
    if "://" in found.base or target.parent.resolve() != Path(found.base).resolve():
        schema = INDEX.with_metadata({"base": found.base})
    waiting: list[pa.Table] = []
    rows = 0
    with IndexWriter(target, schema) as writer:
        for number, (table, damage) in enumerate(_scan_all(found, image_sizes, workers), 1):
            table = _without(table, found.excluded.get(found.names[number - 1], frozenset()))
            if damage and on_error == "raise":
                raise InputError(f'{damage}. Restore the tar, or keep its intact samples with on_error="skip"')
            if damage:
                warnings.warn(
                    f"{damage}. {counted(table.num_rows, 'intact sample')} {noun(table.num_rows, 'is', 'are')} kept",
                    stacklevel=2,
                )
            waiting.append(table)
            rows += table.num_rows
            if sum(map(len, waiting)) >= _GROUP_ROWS:
                writer.write(pa.concat_tables(waiting).unify_dictionaries())
                waiting = []
            if report is not None:
                report(number, len(found.names))
        writer.write(pa.concat_tables(waiting).unify_dictionaries() if waiting else INDEX.empty_table())
        if not rows:
            tars = f"none of the {counted(len(found.names), 'tar')} holds a file with a key and an extension, such as 0001.jpg"
            raise InputError(f"there are no samples in {found.base}: {tars}")
    return target


def _without(table: pa.Table, keys: frozenset[str]) -> pa.Table:
    """Return the index rows in `table` without the rows whose key is in `keys`."""
    return table.filter(pc.invert(pc.is_in(table["key"], pa.array(sorted(keys), pa.string())))) if keys else table


def _beside(found: TarSet) -> Path:
    if "://" in found.base:
        raise InputError(f"the index of the remote tars in {found.base} needs a local path. Pass out=PATH")
    return Path(found.base) / INDEX_FILE


def _scan_all(found: TarSet, image_sizes: bool, workers: int) -> Iterator[tuple[pa.Table, str | None]]:
    """Yield (index rows, description of the damage or None) for each shard, in order.

    `workers` processes scan the shards. With one worker, the current process scans them.
    """
    requests = [(found.address(name), name, image_sizes) for name in found.names]
    if workers == 1:
        yield from (scan(*request) for request in requests)
        return
    local = threading.local()
    started: list[_Scanner] = []

    def answer(request: tuple[str, str, bool]) -> tuple[pa.Table, str | None]:
        if not hasattr(local, "scanner"):
            local.scanner = _Scanner()
            started.append(local.scanner)
        return local.scanner.scan(request)

    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(answer, requests)
    finally:
        pool.shutdown(cancel_futures=True)
        for scanner in started:
            with closing(scanner):
                pass


class _Scanner:
    """A process that runs `scan_tar.serve`.

    multiprocessing is not used, because it would run the caller's script again.
    """

    def __init__(self) -> None:
        # The scanner has a separate process group, so that Ctrl-C reaches only this process. Closing its stdin ends it.
        program = f"import sys; sys.path[:] = {sys.path!r}; from vlmdata.loader.index.scan_tar import serve; serve()"
        command = [sys.executable, "-c", program]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)

    def scan(self, request: tuple[str, str, bool]) -> tuple[pa.Table, str | None]:
        """Return (index rows, description of the damage or None) for one tar. Raises OSError if the tar cannot be opened."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        head = self.process.stdout.read(16)
        if len(head) < 16:
            raise WorkFailed(f"the process that reads {request[0]} died with exit status {self.process.wait()}")
        table_size, note_size = struct.unpack("<QQ", head)
        table = pa.ipc.open_stream(self.process.stdout.read(table_size)).read_all()
        damage, failure = json.loads(self.process.stdout.read(note_size))
        if failure:
            raise OSError(failure)
        return table, damage

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
