"""Pages of archives are read as rows, with the images that the archives hold."""

import base64
import gzip
import hashlib
import io
import json
import time
import zipfile
from collections import Counter

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile

from bench.inputs.archives import arc, gz, http, warc
from tests.archives import odd_archives
from tests.buckets import bucket
from tests.fixtures import fixture
from tests.images.pictures import photo, saved
from tests.real_data import real_data
from tests.servers import LoopbackServer, reply
from tests.sources.reading import read_all
from vlmdata.archives import remote_archives
from vlmdata.row import conform
from vlmdata.sources import warc as module
from vlmdata.sources.warc import Warc
from vlmdata.step import RecipeError

PROSE = "A sentence of this page that is long enough to be read as prose by everybody."
PHOTO = saved(photo(64, 48), "JPEG")
PAGE = f"""<html lang=en><title>T</title><p>{PROSE}<p>{PROSE} Again.<img src=/a.jpg alt="The photo" width=300>
<p>{PROSE} <img src=https://away.org/b.jpg> End."""


def archive(folder, *records: bytes, name: str = "x.warc.gz"):
    (folder / name).write_bytes(gz(*records))
    return Warc(path=str(folder))


def page(url: str = "http://ex.com/p", body: str = PAGE, **options) -> bytes:
    return warc("response", url, http(body.encode(), **options))


IMAGE = warc("response", "https://ex.com/a.jpg", http(PHOTO, "image/jpeg"))


def test_a_page_becomes_a_row_with_a_paragraph_or_an_image_at_each_position(tmp_path):
    source = archive(tmp_path, warc("warcinfo", "", b"x"), page(), IMAGE, warc("metadata", "http://ex.com/p", b"m"))
    (row,) = read_all(source).to_pylist()
    assert row["url"] == "http://ex.com/p" and row["drop"] is None
    assert [text and text["text"] for text in row["texts"]] == [PROSE, f"{PROSE} Again.", None, PROSE, None, "End."]
    first, second = (image for image in row["images"] if image)
    assert (first["url"], first["alt"], first["rendered_width"]) == ("http://ex.com/a.jpg", "The photo", 300)
    assert (first["data"], first["format"]) == (PHOTO, "jpeg")
    assert (second["url"], second["data"]) == ("https://away.org/b.jpg", None)
    facts = json.loads(row["extra"])
    assert (facts["title"], facts["language"], facts["encoding"]) == ("T", "en", "utf-8")
    assert (facts["warc_filename"], facts["warc_date"]) == ("x.warc.gz", "2024-05-06T07:08:09Z")


def test_images_are_found_in_other_files_of_the_collection_by_default(tmp_path):
    archive(tmp_path, page(), name="pages.warc.gz")
    source = archive(tmp_path, IMAGE, name="images.warc.gz")
    assert _data(source) == [PHOTO, None]
    assert _data(Warc(path=str(tmp_path), images="file")) == [None, None]
    assert _data(Warc(path=str(tmp_path), images="none")) == [None, None]


def _data(source: Warc) -> list[bytes | None]:
    return [image["data"] for row in read_all(source).to_pylist() for image in row["images"] if image]


def test_some_records_give_no_row_and_others_a_dropped_row(tmp_path):
    records = [
        page(),
        page("http://ex.com/404", status="404 Not Found"),
        page("http://ex.com/plain", kind="text/plain"),
        warc("request", "http://ex.com/p", b"GET /"),
        warc("response", "dns:ex.com", b"1.2.3.4", Content_Type="text/dns"),
        page("http://ex.com/x", extra="X-Robots-Tag: noimageai, nofollow\r\n"),
        page("http://ex.com/m", "<meta name=robots content='noai'>" + PAGE),
        page("http://ex.com/t", extra="tdm-reservation: 1\r\n"),
        page("http://ex.com/e", "<p></p>"),
        page("http://ex.com/deep", "<div>" * 50_000),
        page("http://ex.com/chunks", extra="Transfer-Encoding: chunked\r\n", body="5\r\nhello!!!\r\n"),
        page("http://ex.com/digest").replace(b"prose", b"prosa", 1),
    ]
    rows = read_all(archive(tmp_path, *records)).to_pylist()
    assert [(row["url"].rpartition("/")[2], row["reason"]) for row in rows] == [
        ("p", None),
        ("x", "noai"),
        ("m", "noai"),
        ("t", "noai"),
        ("e", "empty_page"),
        ("deep", "page_too_deep"),
        ("chunks", "bad_record"),
        ("digest", "bad_record"),
    ]
    assert json.loads(rows[-1]["extra"])["problem"] == "digest"


def test_a_record_wrongly_declared_as_a_page_gives_no_row(tmp_path):
    cut = http(gzip.compress(PHOTO * 20)[:-20], extra="Content-Encoding: gzip\r\n")
    records = [
        page(),
        warc("response", "https://ex.com/a.jpg", http(PHOTO)),
        warc("response", "http://ex.com/pdf", http(b"%PDF-1.7")),
        warc("response", "http://ex.com/script", http(b"var page = '<p>';")),
        warc("response", "http://ex.com/cut", cut),
        warc("response", "http://ex.com/untyped", b"HTTP/1.1 200 OK\r\n\r\n" + PAGE.encode()),
        warc("resource", "http://ex.com/resource", PAGE.encode(), Content_Type="text/html; charset=utf-8"),
        warc("resource", "urn:view:http://ex.com/", PAGE.encode(), Content_Type="text/html"),
    ]
    source = archive(tmp_path, *records)
    rows = read_all(source).to_pylist()
    assert [row["url"].rpartition("/")[2] for row in rows] == ["p", "untyped", "resource"]
    assert [image["data"] for image in rows[0]["images"] if image] == [PHOTO, None]
    assert counted(source)[1] == {"media_image": 2, "media_application": 1, "media_text": 1, "resource": 1}


def test_dns_records_in_an_arc_give_no_row(tmp_path):
    look_ups = [(f"dns:{host}", b"20240506070809\n127.0.0.1") for host in ("a.example", "b.example")]
    (tmp_path / "x.arc").write_bytes(arc(*look_ups, ("http://ex.com/p", http(PAGE.encode()))))
    source = Warc(path=str(tmp_path))
    assert [(row["url"], row["reason"]) for row in read_all(source).to_pylist()] == [("http://ex.com/p", None)]
    assert counted(source)[1] == {"warcinfo": 1, "dns": 2}


def test_records_whose_block_digest_is_that_of_the_body_are_read(tmp_path):
    def record(url: str, body: bytes, kind: str) -> bytes:
        digest = f"sha1:{base64.b32encode(hashlib.sha1(body).digest()).decode()}"
        return warc("response", url, http(body, kind), WARC_Block_Digest=digest, WARC_Payload_Digest=digest)

    records = [record("http://ex.com/p", PAGE.encode(), "text/html"), record("http://ex.com/a.jpg", PHOTO, "image/jpeg")]
    (row,) = read_all(archive(tmp_path, *records)).to_pylist()
    assert (row["reason"], [image["data"] for image in row["images"] if image]) == (None, [PHOTO, None])


def test_an_unreadable_record_is_reported_with_its_place(tmp_path):
    records = [page("http://ex.com/digest").replace(b"prose", b"prosa", 1), page("http://ex.com/0"), b"no record"]
    records.append(page("http://ex.com/chunks", extra="Transfer-Encoding: chunked\r\n", body="5\r\nhello!!!\r\n"))
    places = [f"x.warc, byte {sum(map(len, records[:number]))}" for number in range(4)]
    (tmp_path / "x.warc").write_bytes(b"".join(records))
    bad = [row for row in read_all(Warc(path=str(tmp_path))).to_pylist() if row["drop"]]
    assert [(row["reason"], row["place"], row["problem"]) for row in bad] == [
        ("bad_record", places[0], "the record's content does not match its digest"),
        ("bad_record", places[2], "there is no readable record header here"),
        ("bad_record", places[3], "the chunked encoding of the page is invalid"),
    ]
    (tmp_path / "x.warc").write_bytes(gzip.compress(page())[:-20])
    (cut,) = read_all(Warc(path=str(tmp_path))).to_pylist()
    assert (cut["place"], cut["problem"]) == ("x.warc, byte 0", "the record's content is shorter than its header states")


def test_alt_pairs_are_read_from_the_whole_page(tmp_path):
    body = "<nav><img src=/a.jpg alt='A photo in the menu'></nav>" + PAGE + "<img src=/c.png alt=no>"
    archive(tmp_path, page(body=body), IMAGE)
    rows = read_all(Warc(path=str(tmp_path), yields="alt_pairs")).to_pylist()
    pairs = [(row["images"][0]["url"], row["texts"][1]["text"]) for row in rows]
    assert pairs == [("http://ex.com/a.jpg", "A photo in the menu"), ("http://ex.com/a.jpg", "The photo")]


def test_obelics_mode_drops_the_text_that_obelics_drops(tmp_path):
    body = f"<p>{PROSE}</p><figure><img src=/a.jpg></figure>"
    archive(tmp_path, page(body=body), IMAGE)
    assert _data(Warc(path=str(tmp_path))) == [PHOTO]
    assert _data(Warc(path=str(tmp_path), mode="obelics")) == []


def test_a_large_file_is_divided_and_no_page_is_lost_or_doubled(tmp_path, monkeypatch):
    source = archive(tmp_path, *(page(f"http://ex.com/{i}") for i in range(40)))
    whole = read_all(source)
    monkeypatch.setattr(module, "PIECE_BYTES", 5000)
    assert len(source.pieces()) > 3
    assert read_all(source).equals(whole) and len(whole) == 40


def counted(source: Warc) -> tuple[Counter, Counter]:
    """Return the number of rows of each outcome (null: kept), and the other records by kind."""
    outcomes: Counter = Counter()
    others: Counter = Counter()
    for piece in source.pieces():
        for table in source.read_counting(piece, others):
            outcomes.update(conform(table)["reason"].to_pylist())
    return outcomes, others


def test_every_record_becomes_a_row_or_is_counted(tmp_path):
    records = [
        warc("warcinfo", "", b"x"),
        page(),
        IMAGE,
        warc("request", "http://ex.com/p", b"GET /"),
        warc("request", "http://ex.com/q", b"GET /"),
        warc("revisit", "http://ex.com/p", b""),
        warc("strange", "http://ex.com/p", b""),
        page("http://ex.com/404", status="404 Not Found"),
        page("http://ex.com/999", status="9999999 What"),
        page("http://ex.com/plain", kind="text/plain"),
        page("http://ex.com/odd", kind="strange/thing"),
        warc("response", "dns:ex.com", b"1.2.3.4", Content_Type="text/dns"),
        page("http://ex.com/x", extra="X-Robots-Tag: noai\r\n"),
        page("http://ex.com/digest").replace(b"prose", b"prosa", 1),
    ]
    source = archive(tmp_path, *records)
    others = {"warcinfo": 1, "request": 2, "revisit": 1, "unknown": 1, "http_404": 1, "http_other": 1, "response_not_http": 1}
    others |= {"media_image": 1, "media_text": 1, "media_other": 1}
    assert counted(source) == ({None: 1, "noai": 1, "bad_record": 1}, others)
    assert sum(sum(found.values()) for found in counted(source)) == len(records)
    pairs = Warc(path=str(tmp_path), yields="alt_pairs")
    assert counted(pairs) == ({None: 1, "noai": 1, "bad_record": 1}, {**others, "page": 1})


def test_a_large_uncompressed_file_is_divided_by_its_record_lengths(tmp_path, monkeypatch):
    inner = page("http://inner.org/")  # the records of an archive inside a response do not count
    records = [page(f"http://ex.com/{i}", kind="text/plain" if i % 2 else "text/html") for i in range(40)]
    records.insert(20, warc("response", "http://ex.com/x.warc", http(inner * 20, "application/warc")))
    records[30] = records[30].replace(b"Content-Length", b"Content-Langth", 1)
    (tmp_path / "x.warc").write_bytes(b"".join(records))
    source = Warc(path=str(tmp_path))
    whole, others = read_all(source), counted(source)
    monkeypatch.setattr(module, "PIECE_BYTES", 3000)
    assert len(source.pieces()) > 8 and read_all(source).equals(whole) and counted(source) == others
    assert "inner" not in str(whole["url"].to_pylist()) and others[1]["media_application"] == 1


def test_archives_on_a_store_are_read_in_byte_ranges(tmp_path, monkeypatch):
    local = archive(tmp_path, *(page(f"http://ex.com/{i}") for i in range(40)), IMAGE)
    (tmp_path / "y.wacz").write_bytes(wacz_of(page("http://ex.com/wacz")))
    monkeypatch.setattr(module, "PIECE_BYTES", 5000)
    asked = []
    with bucket(lambda request: asked.append(request.get("HTTP_RANGE"))) as url:
        fs = fsspec.filesystem("s3")
        for file in tmp_path.iterdir():
            fs.put(str(file), f"{url}/{file.name}")
        source = Warc(path=f"{url}/*")
        with pytest.warns(UserWarning, match="images: none"):
            source.check()
        assert len(source.pieces()) > 4
        assert read_all(source).equals(read_all(local))
    assert any(span and span.startswith("bytes=") for span in asked)


def wacz_of(*records: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/a.warc.gz", gz(*records))
    return out.getvalue()


def test_a_failing_store_is_not_reported_as_a_broken_record(tmp_path, monkeypatch):
    monkeypatch.setattr(remote_archives, "PAUSES_S", (0, 0))
    archive(tmp_path, *(page(f"http://ex.com/{i}") for i in range(40)))
    route = reply((tmp_path / "x.warc.gz").read_bytes())
    with LoopbackServer({"/x.warc.gz": route}) as server, pytest.raises(RecipeError, match=r"with range requests\. Copy them"):
        Warc(path=server.url("/x.warc.gz"), images="none").check()
    with fsspec.open("memory://broken/x.warc.gz", "wb") as file:
        file.write((tmp_path / "x.warc.gz").read_bytes())
    source = Warc(path="memory://broken/x.warc.gz", images="none")
    (piece,) = source.pieces()
    read, failures = MemoryFile.read, [2]

    def cut(file, size: int = -1) -> bytes:
        failures[0] -= 1
        if failures[0] >= 0:
            raise OSError("the line is cut")
        return read(file, size)

    monkeypatch.setattr(MemoryFile, "read", cut)
    assert sum(len(table) for table in source.read(piece)) == 40, "two failures of one range are got over"
    failures[0] = 10
    with pytest.raises(ConnectionError, match=r"memory://broken/x.warc.gz: the line is cut"):
        list(source.read(piece))


def test_hostile_pages_are_counted_by_reason(tmp_path):
    prose = f"<p>{PROSE}"
    hostile = {
        "huge": (b"<p>words " * 6_000_000, ""),  # 54 MB, more than is read of a record
        "long": (b"<p>words " * 1_300_000, ""),  # 12 MB, more than is parsed
        "bomb": (gzip.compress(bytes(30_000_000)), "Content-Encoding: gzip\r\n"),
        "deep": (b"<div>" * 100_000 + b"x", ""),
        "tags": (b"<br>" * 400_000, ""),
        "images": (prose.encode() + b"".join(b"<img src=%d.jpg>" % i for i in range(100_000)), ""),
        "nulls": (prose.encode() + b"\0" * 100_000 + b"<p>An\0d more.", ""),
        "lying": (f"<meta charset=utf-16>{prose} Caf\u00e9.".encode("latin-1"), ""),
        "liar": ("\u0420\u0435\u043a\u0430 \u0432\u044b\u0448\u043b\u0430. ".encode("cp1251") * 20, "X: y\r\n"),
    }
    records = [warc("response", f"http://ex.com/{name}", http(body, extra=extra)) for name, (body, extra) in hostile.items()]
    records[-1] = warc("response", "http://ex.com/liar", http(hostile["liar"][0], kind="text/html; charset=utf-8"))
    start = time.thread_time()
    rows = read_all(archive(tmp_path, *records)).to_pylist()
    assert time.thread_time() - start < 60
    found = {(row["url"] or "").rpartition("/")[2]: (row["reason"], json.loads(row["extra"])) for row in rows}
    reasons = {name: facts.get("problem") or reason for name, (reason, facts) in found.items()}
    refused = {"huge": "too_large", "long": "page_too_large", "bomb": "too_large", "deep": "page_too_deep"}
    refused["tags"] = "page_too_many_tags"
    assert reasons == {**dict.fromkeys(hostile), **refused}
    assert found["images"][1]["left_out"] == {"images": 99_000}
    assert found["liar"][1]["encoding"] == "utf-8" and found["liar"][1]["replaced_chars"] > 100
    assert [text["text"] for text in rows[7]["texts"]] == [f"{PROSE} Caf\ufffd."], "a <meta> cannot mean utf-16: it is utf-8"


@pytest.mark.parametrize(
    ("folders", "pages", "held"),
    [
        pytest.param(lambda folder: [odd_archives.write(folder / "odd"), fixture("C_warc/wget")], 69, 9, id="fixture"),
        pytest.param(lambda _: [real_data("C_warc")], 223, 399, id="real_data", marks=pytest.mark.slow),
    ],
)
def test_every_page_of_real_archives_has_one_row(folders, pages, held, tmp_path):
    rows = read_all(Warc(path=[str(folder) for folder in folders(tmp_path)])).to_pylist()
    kept = [row for row in rows if row["drop"] is None]
    images = [image for row in kept for image in row["images"] if image]
    assert len(kept) == pages and {row["reason"] for row in rows} == {None, "bad_record", "empty_page"}
    assert sum(image["data"] is not None for image in images) == held
    positions = [pair for row in kept for pair in zip(row["texts"], row["images"], strict=True)]
    assert all((text is None) != (image is None) for text, image in positions)
