"""Several processes read datasets at once from a real S3 interface and a real web server on the loopback address."""

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.buckets import bucket
from tests.loader.tars import caption_set, contents, keys_of
from vlmdata import stream
from vlmdata.loader import remote_tars
from vlmdata.loader.index.build_index import build_index
from vlmdata.loader.map_style import Rows
from vlmdata.loader.packed import Packing
from vlmdata.loader.stream import ReadOptions

pytestmark = pytest.mark.whole


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    folder = caption_set(tmp_path / "tars", [37, 1, 50], size=20_000)
    build_index(folder)
    return folder


class _Files(http.server.SimpleHTTPRequestHandler):
    """A handler that serves a folder with byte ranges and records the requests."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        wanted = self.headers.get("Range")
        self.server.asked.append((path.name, wanted))  # type: ignore[attr-defined]
        first, last = 0, len(data) - 1
        if wanted:
            first, last = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
            last = min(last, len(data) - 1)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tars: Path) -> Iterator[Any]:
    """Serve the folder of tars on a web server whose `asked` lists the requests as (file, range)."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=str(tars)))
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def address_of(web: Any) -> str:
    return f"http://127.0.0.1:{web.server_port}"


@pytest.mark.parametrize("with_index", [True, False])
def test_a_bucket_gives_the_samples_of_the_folder(tars: Path, tmp_path: Path, with_index: bool) -> None:
    local = contents(stream(tars, reading=ReadOptions(cache=tmp_path / "a"), torch=False))
    with bucket() as place:
        files = fsspec.filesystem("s3")
        for file in tars.glob("*.tar" if not with_index else "*"):
            files.put_file(str(file), f"{place}/set/{file.name}")
        assert contents(stream(f"{place}/set", reading=ReadOptions(cache=tmp_path / "b"), torch=False)) == local
        rows = Rows(f"{place}/set", cache=tmp_path / "c")
        assert sorted(rows[row]["txt"] for row in range(len(rows))) == sorted(text for _, _, text in local)
        workers = stream(f"{place}/set", batch_size=8, reading=ReadOptions(cache=tmp_path / "d")).loader(2)
        assert keys_of(workers)[:88] == [key for key, _, _ in local]


def test_each_block_is_requested_once_from_a_web_server(web: Any, tars: Path, tmp_path: Path) -> None:
    names = [f"{address_of(web)}/{number:05}.tar" for number in range(3)]
    local = contents(stream(tars, reading=ReadOptions(cache=tmp_path / "a"), torch=False))
    assert contents(stream(names, reading=ReadOptions(cache=tmp_path / "b"), torch=False)) == local
    by_index = stream(f"{address_of(web)}/index.parquet", batch_size=8, reading=ReadOptions(cache=tmp_path / "c"))
    web.asked.clear()
    keys = keys_of(by_index.loader(3))
    assert keys[:88] == [key for key, _, _ in local]
    blocks = Counter(
        (name, block)
        for name, wanted in web.asked
        if wanted
        for first, last in [map(int, wanted.removeprefix("bytes=").split("-"))]
        for block in range(first // remote_tars.BLOCK, last // remote_tars.BLOCK + 1)
    )
    size = sum(path.stat().st_size for path in tars.glob("*.tar"))
    assert len(blocks) >= size // remote_tars.BLOCK  # everything was requested from the server
    assert set(blocks.values()) == {1}  # nothing was requested twice, although three processes read it


def tokens_of(sample: dict[str, Any]) -> int:
    return 10 + len(sample["txt"])


def test_packs_of_a_bucket_equal_those_of_the_folder(tars: Path, tmp_path: Path) -> None:
    packing = Packing(64, tokens_of, "ten and a letter each", workers=2)

    def packs(place: Any, cache: str) -> list[list[str]]:
        return [
            [sample["__key__"] for sample in one]
            for one in stream(place, packing=packing, reading=ReadOptions(cache=tmp_path / cache), torch=False)
        ]

    with bucket() as place:
        for file in tars.glob("*.*"):
            fsspec.filesystem("s3").put_file(str(file), f"{place}/set/{file.name}")
        assert packs(f"{place}/set", "b") == packs(tars, "a")


def test_a_tar_missing_from_a_bucket_is_reported_or_its_samples_are_skipped(tars: Path, tmp_path: Path) -> None:
    with bucket() as place:
        files = fsspec.filesystem("s3")
        for file in tars.glob("*.*"):
            files.put_file(str(file), f"{place}/set/{file.name}")
        files.rm_file(f"{place}/set/00002.tar")
        with pytest.raises(ValueError, match=r"00002\.tar, byte \d+, sample '2-\d+': the tar cannot be opened.*on_error"):
            keys_of(stream(f"{place}/set", reading=ReadOptions(cache=tmp_path / "a"), torch=False))
        skipping = stream(f"{place}/set", reading=ReadOptions(on_error="skip", cache=tmp_path / "b"), torch=False)
        with pytest.warns(UserWarning, match="skipped"):
            assert {key[0] for key in keys_of(skipping)} == {"0", "1"}
        assert skipping.skipped >= 50


READER = """
import json, sys
from vlmdata import stream
from vlmdata.loader.stream import ReadOptions
reading = ReadOptions(threads=2, cache=sys.argv[2], cache_bytes=int(sys.argv[3]))
samples = stream(sys.argv[1], seed=int(sys.argv[4]), reading=reading, torch=False)
print(json.dumps(sorted((sample["__key__"], len(sample["jpg"])) for sample in samples)))
"""


def test_processes_share_a_cache_smaller_than_the_dataset(web: Any, tars: Path, tmp_path: Path) -> None:
    """Four processes read in four orders through a cache of a third of the dataset. All samples are right and the limit
    holds."""
    bound = 3 << 20
    assert sum(path.stat().st_size for path in tars.glob("*.tar")) < 5 << 20  # three blocks fit into the cache
    arguments = [f"{address_of(web)}/index.parquet", str(tmp_path / "cache"), str(bound)]
    started = [
        subprocess.Popen([sys.executable, "-c", READER, *arguments, str(seed)], stdout=subprocess.PIPE) for seed in range(4)
    ]
    found = [json.loads(process.communicate(timeout=800)[0]) for process in started]
    local = stream(tars, reading=ReadOptions(cache=tmp_path / "a"), torch=False)
    assert all(one == sorted([sample["__key__"], len(sample["jpg"])] for sample in local) for one in found[:1])
    assert all(one == found[0] for one in found)
    held = sum(os.stat(path).st_size for path in (tmp_path / "cache" / "blocks").glob("??/*"))
    assert held <= bound * 1.2
