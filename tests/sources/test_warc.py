"""Pages of archives as rows, with the images that the archives hold."""

import json

import fsspec
import pytest

from tests.html.archives import gz, http, warc
from tests.images.pictures import photo, saved
from tests.real_data import real_data
from tests.sources.reading import read_all
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


def test_a_page_is_a_row_with_a_paragraph_or_an_image_at_each_position(tmp_path):
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


def test_images_come_from_other_files_of_the_collection_unless_told_otherwise(tmp_path):
    archive(tmp_path, page(), name="pages.warc.gz")
    source = archive(tmp_path, IMAGE, name="images.warc.gz")
    assert _data(source) == [PHOTO, None]
    assert _data(Warc(path=str(tmp_path), images="file")) == [None, None]
    assert _data(Warc(path=str(tmp_path), images="none")) == [None, None]


def _data(source: Warc) -> list[bytes | None]:
    return [image["data"] for row in read_all(source).to_pylist() for image in row["images"] if image]


def test_what_makes_no_row_and_what_makes_a_dropped_one(tmp_path):
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


def test_alt_pairs_take_the_whole_page(tmp_path):
    body = "<nav><img src=/a.jpg alt='A photo in the menu'></nav>" + PAGE + "<img src=/c.png alt=no>"
    archive(tmp_path, page(body=body), IMAGE)
    rows = read_all(Warc(path=str(tmp_path), yields="alt_pairs")).to_pylist()
    pairs = [(row["images"][0]["url"], row["texts"][1]["text"]) for row in rows]
    assert pairs == [("http://ex.com/a.jpg", "A photo in the menu"), ("http://ex.com/a.jpg", "The photo")]


def test_obelics_mode_loses_what_obelics_lost(tmp_path):
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


def test_remote_archives_are_refused():
    with fsspec.open("memory://x.warc.gz", "wb") as file:
        file.write(b"x")
    with pytest.raises(RecipeError, match="local folder"):
        Warc(path="memory://x.warc.gz").check()


def test_real_archives_every_page_has_one_row():
    rows = read_all(Warc(path=str(real_data("C_warc")))).to_pylist()
    kept = [row for row in rows if row["drop"] is None]
    images = [image for row in kept for image in row["images"] if image]
    assert len(kept) > 200 and {row["reason"] for row in rows} == {None, "bad_record", "empty_page"}
    assert sum(image["data"] is not None for image in images) > 430
    positions = [pair for row in kept for pair in zip(row["texts"], row["images"], strict=True)]
    assert all((text is None) != (image is None) for text, image in positions)
