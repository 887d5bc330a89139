"""The pieces of a divided archive together hold the records of the whole, for every compression and damage."""

import gzip
import io
import random
import re
import zipfile
from collections import Counter
from collections.abc import Callable

import fsspec
import pyarrow as pa
import pytest
from fastwarc.stream_io import Lz4Writer, ZstdWriter, zstd_train_dictionary_from_samples

from bench.inputs.archives import arc, framed, gz, http, warc
from tests.buckets import bucket
from tests.images.pictures import photo, saved
from vlmdata.archives import sequential
from vlmdata.archives.read_archive import piece_records, pieces, records, volumes
from vlmdata.archives.record import Record
from vlmdata.archives.remote_archives import open_archive
from vlmdata.archives.sequential import Sequential
from vlmdata.row import conform
from vlmdata.sources import warc as module
from vlmdata.sources.warc import Warc

pytestmark = pytest.mark.whole

Pack = Callable[[list[bytes]], bytes]
MAX_BYTES = 30_000_000
SAMPLES = [warc("response", f"http://ex.com/{i}", http(b"<p>hello" * 20)) for i in range(200)]
DICTIONARY = zstd_train_dictionary_from_samples([record[cut:] for record in SAMPLES for cut in (0, 50)], 4096)


def joined(parts: list[bytes]) -> bytes:
    return b"".join(parts)


def gzipped(parts: list[bytes]) -> bytes:
    return gz(*parts)


def lz4(parts: list[bytes]) -> bytes:
    return framed(Lz4Writer, parts)


def zstd(parts: list[bytes]) -> bytes:
    return framed(ZstdWriter, parts, dictionary=DICTIONARY, compress_dictionary_frame=True)


def wacz(pack: Pack, name: str, compression: int) -> Pack:
    def packed(parts: list[bytes]) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", compression) as file:
            file.writestr(f"archive/{name}", pack(parts))
        return out.getvalue()

    return packed


def between(empty: bytes, pack: Pack) -> Pack:
    """Put empty frames before, between and after the frames of the records."""
    return lambda parts: empty * 2 + b"".join(pack([part]) + empty * (number % 3) for number, part in enumerate(parts))


EMPTY = {"gzip": gzip.compress(b"", mtime=0), "lz4": bytes.fromhex("04224d18604082") + bytes(4)}
EMPTY["zstd"] = bytes.fromhex("28b52ffd2000010000")
# the compression of the archive, and that of the archives inside it, which it holds as pages
KINDS: dict[str, tuple[Pack, Pack]] = {
    "plain": (joined, joined),
    "gzip": (gzipped, gzipped),
    "lz4": (lz4, lz4),
    "zstd": (lambda parts: framed(ZstdWriter, parts), lambda parts: framed(ZstdWriter, parts)),
    "zstd with a dictionary": (zstd, zstd),
    "one gzip stream": (lambda parts: gzip.compress(joined(parts)), joined),
    "two gzip streams": (lambda parts: gz(joined(parts[:30]), joined(parts[30:])), gzipped),
    "one LZ4 frame": (lambda parts: framed(Lz4Writer, [joined(parts)]), joined),
    "one Zstandard frame": (lambda parts: framed(ZstdWriter, [joined(parts)]), joined),
    "gzip, empty members": (between(EMPTY["gzip"], gzipped), between(EMPTY["gzip"], gzipped)),
    "lz4, empty frames": (between(EMPTY["lz4"], lz4), between(EMPTY["lz4"], lz4)),
    "zstd, empty frames": (between(EMPTY["zstd"], lambda parts: framed(ZstdWriter, parts)), joined),
    "gzip streams, empty members": (
        lambda parts: between(EMPTY["gzip"], gzipped)([joined(parts[:30]), joined(parts[30:])]),
        gzipped,
    ),
    "wacz, empty members": (wacz(between(EMPTY["gzip"], gzipped), "a.warc.gz", zipfile.ZIP_STORED), gzipped),
    "wacz": (wacz(gzipped, "a.warc.gz", zipfile.ZIP_STORED), gzipped),
    "wacz, plain": (wacz(joined, "a.warc", zipfile.ZIP_STORED), joined),
    "wacz, packed": (wacz(gzipped, "a.warc.gz", zipfile.ZIP_DEFLATED), gzipped),
    "wacz, packed, plain": (wacz(joined, "a.warc", zipfile.ZIP_DEFLATED), joined),
}


def crawl(rng: random.Random, pack: Pack, count: int = 100) -> list[bytes]:
    """Return records of all sizes; some pages are archives, some records declare no digest or have odd headers."""
    made = []
    for number in range(count):
        body = rng.randbytes(rng.choice([10, 300, 3000, 9000])) + b"<p>hello " * rng.choice([1, 50, 3000])
        record = warc("response", f"http://ex.com/{number}", http(body))
        if number % 10 == 3:
            record = warc("request", f"http://ex.com/{number}", b"GET / HTTP/1.1\r\n\r\n" * rng.choice([1, 100]))
        if number % 10 == 6:
            inner = [warc("response", f"http://inner.org/{number}/{i}", http(rng.randbytes(500))) for i in range(60)]
            record = warc("response", f"http://ex.com/{number}.warc", http(pack(inner), "application/warc"))
        if number % 10 == 8:
            record = record.replace(b"WARC-Block-Digest", b"X-Block-Digest")
        if number % 20 == 5:
            record = re.sub(rb"(?m)^[A-Z][\w-]+:", lambda name: name[0].lower(), record, count=7)
        if number % 50 == 49:
            header, _, block = record.partition(b"\r\n\r\n")
            record = header.replace(b"\r\n", b"\n") + b"\n\n" + block
        made.append(record)
    return made


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Flip bits, delete, insert or zero bytes, or cut off the end."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 3, 8])):
        place = rng.randrange(len(changed))
        how = rng.random()
        if how < 0.4:
            changed[place] ^= 1 << rng.randrange(8)
        elif how < 0.6:
            del changed[place : place + rng.choice([1, 100, 30_000])]
        elif how < 0.8:
            changed[place:place] = rng.randbytes(rng.choice([1, 50, 5000]))
        elif how < 0.9:
            changed[place : place + 1000] = bytes(1000)
        else:
            del changed[max(place, 1000) :]
    return bytes(changed)


def whole_and_divided(path, every: int) -> tuple[list[Record], list[list[Record]]]:
    whole, divided = [], []
    for volume in volumes(path):
        whole += records(volume, max_bytes=MAX_BYTES)
        ranges = pieces(volume, path.stat().st_size, every)
        divided += [list(piece_records(volume, start, end, MAX_BYTES)) for start, end in ranges]
    return whole, divided


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_together_give_the_records_of_the_whole(tmp_path, kind):
    pack, inner = KINDS[kind]
    (tmp_path / "x").write_bytes(pack(crawl(random.Random(1), inner)))
    whole, divided = whole_and_divided(tmp_path / "x", 20_000)
    assert [record for piece in divided for record in piece] == whole
    assert [record.url for record in whole if record.kind != "bad_record"] == [
        f"http://ex.com/{number}" + (".warc" if number % 10 == 6 else "") for number in range(100)
    ]
    assert sum(bool(piece) for piece in divided) > 5, "more than five pieces have records"


@pytest.mark.parametrize("kind", KINDS)
def test_damage_loses_or_doubles_no_record_at_the_cuts(tmp_path, kind):
    pack, inner = KINDS[kind]
    for seed in range(5):
        rng = random.Random(seed)
        (tmp_path / f"{seed}").write_bytes(damaged(rng, pack(crawl(rng, inner, 60))))
        whole, divided = whole_and_divided(tmp_path / f"{seed}", rng.choice([5000, 20_000, 60_000]))
        assert [record for piece in divided for record in piece] == whole, f"seed {seed}"


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lambda data: gz(data[:9000], data[9000:])], ids=["arc", "gz", "members"]
)
@pytest.mark.parametrize("break_it", [False, True])
def test_arc_files_are_divided(tmp_path, pack, break_it):
    for seed in range(5):
        rng = random.Random(seed)
        pages = [(f"http://ex.com/{i}", http(rng.randbytes(rng.choice([10, 3000])) + b"<p>hello\n" * 300)) for i in range(90)]
        data = pack(arc(*pages))
        (tmp_path / f"{seed}").write_bytes(damaged(rng, data) if break_it else data)
        whole, divided = whole_and_divided(tmp_path / f"{seed}", 20_000)
        assert [record for piece in divided for record in piece] == whole
        if not break_it:
            assert len(whole) == 91 and sum(bool(piece) for piece in divided) >= 3


@pytest.mark.parametrize("kind", ["gzip", "zstd", "lz4", "wacz"])
def test_a_damaged_frame_is_one_bad_record(tmp_path, kind):
    pack, _ = KINDS[kind]
    parts = [warc("response", f"http://ex.com/{i}", http(random.Random(i).randbytes(3000))) for i in range(5)]
    data = bytearray(pack(parts))
    place = len(data) // 2
    data[place : place + 20] = bytes(20)
    (tmp_path / "x").write_bytes(data)
    (volume,) = volumes(tmp_path / "x")
    assert [record.kind for record in records(volume)] == ["response"] * 2 + ["bad_record"] + ["response"] * 2


def test_a_stream_can_be_read_back_and_forth_like_a_file(monkeypatch):
    monkeypatch.setattr(sequential, "RING_BYTES", 300_000)
    monkeypatch.setattr(sequential, "JUMP_BYTES", 200_000)
    rng = random.Random(0)
    data = rng.randbytes(2_000_000)
    starts = []
    stream = Sequential("x", lambda: starts.append(1) or io.BufferedReader(io.BytesIO(data)))
    for _ in range(300):
        place, size = rng.choice([0, 1, stream.tell() - 5000, rng.randrange(2_100_000)]), rng.choice([1, 4, 5000, 200_000])
        stream.seek(max(0, place))
        assert stream.read(size) == data[max(0, place) : max(0, place) + size]
    assert len(starts) > 3, "a step far back restarts the stream"
    stream.close()


def test_a_later_piece_of_a_stream_continues_where_the_previous_ended(tmp_path, monkeypatch):
    (tmp_path / "x.warc.gz").write_bytes(gzip.compress(joined(crawl(random.Random(1), joined))))
    (volume,) = volumes(tmp_path / "x.warc.gz")
    monkeypatch.setattr(sequential, "RING_BYTES", 300_000)
    ranges = pieces(volume, 10_000_000, 20_000)
    opened = []
    monkeypatch.setattr("vlmdata.archives.volume.open_archive", lambda path: opened.append(1) or open_archive(path))
    for start, end in ranges:
        list(piece_records(volume, start, end, MAX_BYTES))
    assert len(ranges) > 10 and len(opened) <= 1, "planning leaves the stream at its end, so it restarts once"


PROSE = "A sentence of this page that is long enough to be read as prose by everybody. " * 3


def page(number: int, body: str = PROSE) -> bytes:
    html = f"<p>{body}<img src=/{number}.jpg width=300><p>{body}{number}"
    return warc("response", f"http://ex.com/{number}", http(html.encode()))


def rows_and_others(source: Warc) -> tuple[list[dict], Counter]:
    others: Counter = Counter()
    tables = [conform(table) for piece in source.pieces() for table in source.read_counting(piece, others)]
    return pa.concat_tables(tables).to_pylist(), others


@pytest.mark.parametrize("kind", ["lz4", "zstd", "one gzip stream", "wacz", "wacz, packed", "arc"])
def test_a_divided_archive_gives_the_rows_of_the_whole(tmp_path, monkeypatch, kind):
    image = warc("response", "http://ex.com/5.jpg", http(saved(photo(64, 48), "JPEG"), "image/jpeg"))
    parts = [*(page(number) for number in range(40)), image, warc("request", "http://ex.com/1", b"GET /")]
    if kind == "arc":
        (tmp_path / "x.arc").write_bytes(arc(*((f"http://ex.com/{i}", http(f"<p>{PROSE}{i}".encode())) for i in range(40))))
    else:
        (tmp_path / ("x.wacz" if "wacz" in kind else "x.warc")).write_bytes(KINDS[kind][0](parts))
    source = Warc(path=str(tmp_path))
    rows, others = rows_and_others(source)
    monkeypatch.setattr(module, "PIECE_BYTES", 500 if kind == "one gzip stream" else 3000)
    assert len(source.pieces()) > 3 and rows_and_others(source) == (rows, others) and len(rows) == 40
    assert kind == "arc" or [row["images"][1]["data"] is not None for row in rows].index(True) == 5


@pytest.mark.parametrize("damage", [False, True])
def test_a_plain_remote_file_is_divided_with_few_requests(tmp_path, monkeypatch, damage):
    records = [page(number) for number in range(60)]
    records[30] = records[30].replace(b"Content-Length", b"Content-Langth") if damage else records[30]
    (tmp_path / "x.warc").write_bytes(b"".join(records))
    monkeypatch.setattr(module, "PIECE_BYTES", 4000)
    local = Warc(path=str(tmp_path), images="none")
    requested: list[str] = []
    with bucket(lambda request: requested.append(request.get("HTTP_RANGE"))) as url:
        fsspec.filesystem("s3").put(str(tmp_path / "x.warc"), f"{url}/x.warc")
        source = Warc(path=f"{url}/x.warc", images="none")
        requested.clear()
        assert [(piece["start"], piece["end"]) for piece in source.pieces()] == [(p["start"], p["end"]) for p in local.pieces()]
        assert len([span for span in requested if span]) < 10, "headers are read in blocks, not one request each"
        assert rows_and_others(source) == rows_and_others(local)


def test_pages_over_the_text_limit_of_a_piece_are_counted(tmp_path, monkeypatch):
    pages = [page(0), page(1, PROSE * 1000), page(2, PROSE * 1000), page(3)]
    (tmp_path / "x.warc.gz").write_bytes(gz(*pages))
    monkeypatch.setattr(module, "MAX_PIECE_CHARS", 700_000)
    rows, _ = rows_and_others(Warc(path=str(tmp_path)))
    assert [(row["url"][-1], row["reason"], len(row["texts"]) > 0) for row in rows] == [
        ("0", None, True),
        ("1", None, True),
        ("2", "too_much_text", False),
        ("3", None, True),
    ]


def test_the_images_of_one_page_have_a_common_byte_limit(tmp_path, monkeypatch):
    body = b"<p>" + PROSE.encode() + b"".join(b"<img src=/%d.jpg width=300>" % number for number in range(4))
    data = saved(photo(64, 48), "JPEG")
    images = [warc("response", f"http://ex.com/{number}.jpg", http(data, "image/jpeg")) for number in range(4)]
    (tmp_path / "x.warc.gz").write_bytes(gz(warc("response", "http://ex.com/", http(body)), *images))
    monkeypatch.setattr(module, "MAX_PAGE_IMAGES_BYTES", 2 * len(data))
    ((row,), _) = rows_and_others(Warc(path=str(tmp_path)))
    assert [image["data"] is not None for image in row["images"] if image] == [True, True, False, False]
