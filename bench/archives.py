"""Archive records per CPU second of vlmdata and warcio on the same files: headers parsed, content read, HTTP decoded.

python -m bench.archives         # needs vlmdata[bench] and the real archives of ../shared/data
python -m bench.archives FILE    # print the memory that reading one archive takes
python -m bench.archives --pieces FOLDER   # write large archives to FOLDER one by one; print the cost of a plan and of a piece
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from fastwarc.stream_io import Lz4Writer, ZstdWriter
from fastwarc.warc import ArchiveIterator
from warcio.archiveiterator import ArchiveIterator as WarcioIterator

from bench.inputs.archives import arc, framed, gz, warc
from bench.inputs.crawl import Crawl, articles, sites, textbook
from bench.inputs.real_data import ROOT
from vlmdata.archives.http_message import parse_response
from vlmdata.archives.read_archive import records, volumes
from vlmdata.engine.partitions.partition_log import PartitionLog
from vlmdata.engine.partitions.tombstones import Tombstones
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.work.read_source import piece_rows
from vlmdata.sources.warc import Warc

FILES = (
    "solrwayback/example_warc/IAH-20080430204825-00000-blackbook.warc.gz",
    "pywb_sample_archive/warcs/iana.warc.gz",
    "resiliparse_tests/warcfile.warc.gz",
    "node-warc/books.toscrape.warc",
)
ROUNDS = 5
COPIES = (1, 18)  # copies of the real pages and images in an archive: 62 MB, and over a gigabyte


def ours(path: Path) -> int:
    count = 0
    for volume in volumes(path):
        for record in records(volume):
            count += 1
            if record.kind == "response":
                parse_response(record.block, max_bytes=100_000_000)
    return count


def warcio(path: Path) -> int:
    count = 0
    with path.open("rb") as file:
        for record in WarcioIterator(file):
            count += 1
            if record.rec_type == "response":
                record.content_stream().read()
    return count


def fastwarc_alone(path: Path) -> int:
    """Read as fast as FastWARC can: compute no digests and decode no HTTP bodies."""
    count = 0
    for record in ArchiveIterator(str(path), parse_http=False):
        count += 1
        if str(record.record_type).endswith("response"):
            record.reader.read()
    return count


def memory(path: Path) -> None:
    """Print the time and memory that reading an archive from its first record to its last takes."""
    start = time.process_time()
    count = ours(path)
    spent = time.process_time() - start
    print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, {count} records, {spent:.1f} CPU s, peak {peak()} MB")


def peak() -> int:
    """Return the largest resident memory of this process in MB. For a child process, `getrusage` would count the parent's
    memory too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def real_messages(folder: Path) -> list[tuple[str, bytes]]:
    """Return the address and the HTTP message of each page and image in the test data: books, an encyclopedia, news sites."""
    crawl = Crawl(folder / "real.warc.gz")
    textbook(crawl, ROOT / "A_captioned/openstax/sociology-3e")
    sites(crawl, ROOT / "B2_sites_with_images/gutenberg", ROOT / "B2_sites_with_images/wikipedia_raycharles_zim2015")
    articles(crawl, ROOT / "B_html/scrapinghub_aeb")
    crawl.close()
    found = [record for volume in volumes(folder / "real.warc.gz") for record in records(volume)]
    return [(record.url or "", record.block) for record in found if record.kind == "response"]


def copied(out: IO[bytes], content: bytes, copies: int) -> None:
    for _ in range(copies):
        for place in range(0, len(content), 1 << 20):
            out.write(content[place : place + (1 << 20)])


def write_kind(kind: str, messages: list[tuple[str, bytes]], copies: int, path: Path) -> None:
    """Write an archive that repeats the messages `copies` times."""
    ours = [warc("response", url, block) for url, block in messages]
    head, body = (
        arc(),
        b"".join(b"%s 127.0.0.1 20240506070809 text/html %d\n%s\n" % (u.encode(), len(b), b) for u, b in messages),
    )
    with path.open("wb") as out:
        if kind == "plain":
            copied(out, b"".join(ours), copies)
        elif kind == "gzip":
            copied(out, gz(*ours), copies)
        elif kind == "LZ4":
            copied(out, framed(Lz4Writer, ours), copies)
        elif kind == "Zstandard":
            copied(out, framed(ZstdWriter, ours), copies)
        elif kind == "ARC":
            out.write(head)
            copied(out, body, copies)
        elif kind.startswith("WACZ"):
            packing = zipfile.ZIP_STORED if kind == "WACZ" else zipfile.ZIP_DEFLATED
            with (
                zipfile.ZipFile(out, "w", packing, compresslevel=1) as wacz,
                wacz.open("archive/a.warc.gz", "w", force_zip64=True) as m,
            ):
                copied(m, gz(*ours), copies)
        else:
            whole = body if kind.startswith("ARC") else b"".join(ours)
            stream: Any = {
                "one gzip stream": lambda: gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1),
                "ARC, gzip": lambda: gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1),
                "one LZ4 frame": lambda: Lz4Writer(out),
                "one Zstandard frame": lambda: ZstdWriter(out),
            }[kind]()
            if kind == "ARC, gzip":
                stream.write(head)
            copied(stream, whole, copies)
            stream.close()


KINDS = ("plain", "gzip", "LZ4", "Zstandard", "WACZ", "ARC", "WACZ, packed", "one gzip stream", "one LZ4 frame")
KINDS += ("one Zstandard frame", "ARC, gzip")


def piece_memory(folder: Path) -> None:
    """Print the cost of planning an archive, and of reading the piece in its middle with rows and images as a worker does."""
    messages = real_messages(folder)
    print(f"{'kind':<22}{'MB':>7}{'pieces':>8}{'plan CPU s':>12}{'MB':>6}{'piece: rows':>13}{'CPU s':>8}{'MB':>6}")
    for kind in KINDS:
        for copies in COPIES:
            path = folder / ("x" + (".wacz" if kind.startswith("WACZ") else ".arc" if kind.startswith("ARC") else ".warc"))
            write_kind(kind, messages, copies, path)
            plan = alone("plan", path)
            piece = alone("read", path, json.dumps(plan["middle"]))
            size = path.stat().st_size / 1e6
            print(
                f"{kind:<22}{size:>7.0f}{plan['pieces']:>8}{plan['cpu']:>12.1f}{plan['peak']:>6}"
                f"{piece['rows']:>13}{piece['cpu']:>8.1f}{piece['peak']:>6}",
                flush=True,
            )
            path.unlink()


def alone(what: str, path: Path, *more: str) -> dict[str, Any]:
    """Run one measurement in a new process and return its result."""
    command = [sys.executable, "-m", "bench.archives", what, str(path), *more]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def plan(path: Path) -> dict[str, Any]:
    pieces = Warc(path=str(path)).pieces()
    return {"pieces": len(pieces), "middle": pieces[len(pieces) // 2]}


def read_piece(path: Path, piece: dict[str, Any]) -> dict[str, Any]:
    """Read a piece and write its rows to a store, as a worker does."""
    source = Warc(path=str(path), images="file")
    with tempfile.TemporaryDirectory(dir=path.parent) as out:
        store = open_store(out)
        rows = piece_rows(store, source, piece, PartitionLog(store, 0), Tombstones())
        return {"rows": len(rows)}


def main() -> None:
    if sys.argv[1:2] in (["plan"], ["read"]):
        start = time.process_time()
        found = plan(Path(sys.argv[2])) if sys.argv[1] == "plan" else read_piece(Path(sys.argv[2]), json.loads(sys.argv[3]))
        print(json.dumps({**found, "cpu": time.process_time() - start, "peak": peak()}))
        return
    if sys.argv[1:2] == ["--pieces"]:
        piece_memory(Path(sys.argv[2]))
        return
    if sys.argv[1:]:
        memory(Path(sys.argv[1]))
        return
    tools: dict[str, Callable[[Path], int]] = {"vlmdata": ours, "warcio": warcio, "FastWARC alone": fastwarc_alone}
    print(f"{'file':<44}{'records':>8}" + "".join(f"{name:>18}" for name in tools) + f"{'x warcio':>14}")
    for name in FILES:
        path = ROOT / "C_warc" / name
        best = dict.fromkeys(tools, 0.0)
        for _ in range(ROUNDS):
            for tool, read in tools.items():
                start = time.process_time()
                count = read(path)
                best[tool] = max(best[tool], count / (time.process_time() - start))
        speeds = "".join(f"{best[tool]:>16.0f}/s" for tool in tools)
        print(f"{path.name:<44}{count:>8}{speeds}{best['vlmdata'] / best['warcio']:>14.1f}")


if __name__ == "__main__":
    main()
