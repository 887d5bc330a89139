"""Folders of HTML files are read as rows, with the images beside them."""

import gzip
import os

import pytest

from tests.fixtures import fixture
from tests.images.pictures import photo, saved
from tests.real_data import real_data
from tests.sources.reading import read_all
from vlmdata.sources.html import Html
from vlmdata.step import RecipeError

PROSE = "A sentence of this page that is long enough to be read as prose by everybody."
PHOTO = saved(photo(64, 48), "JPEG")


@pytest.fixture
def site(tmp_path):
    (tmp_path / "site/text").mkdir(parents=True)
    (tmp_path / "site/img").mkdir()
    (tmp_path / "site/img/a b.jpg").write_bytes(PHOTO)
    (tmp_path / "secret.jpg").write_bytes(PHOTO)
    sources = ("../img/a%20b.jpg?v=1", "../../secret.jpg", "/img/a%20b.jpg", "lost.jpg")
    body = f"<p>{PROSE}</p>" + "".join(f"<img src='{source}'>" for source in sources)
    (tmp_path / "site/text/p.html").write_text(body)
    (tmp_path / "site/q.htm.gz").write_bytes(gzip.compress(f"<p>{PROSE}".encode()))
    (tmp_path / "site/r.html.gz").write_bytes(b"no gzip")
    return tmp_path / "site"


def test_images_are_read_only_from_the_folder(site):
    rows = {row["url"]: row for row in read_all(Html(path=str(site), url="https://ex.org/s")).to_pylist()}
    assert sorted((url, row["reason"]) for url, row in rows.items()) == [
        ("https://ex.org/s/q.htm", None),
        ("https://ex.org/s/r.html", "bad_record"),
        ("https://ex.org/s/text/p.html", None),
    ]
    images = [image for image in rows["https://ex.org/s/text/p.html"]["images"] if image]
    assert [(image["url"], image["data"] == PHOTO) for image in images] == [
        ("https://ex.org/s/img/a%20b.jpg?v=1", True),
        ("https://ex.org/secret.jpg", False),
        ("https://ex.org/img/a%20b.jpg", False),
        ("https://ex.org/s/text/lost.jpg", False),
    ]


def test_a_link_out_of_the_folder_is_not_followed(site):
    (site / "img/out.jpg").symlink_to(site.parent / "secret.jpg")
    (site / "text/p.html").write_text(f"<p>{PROSE}</p><img src=../img/out.jpg>")
    rows = read_all(Html(path=str(site))).to_pylist()
    assert [image["data"] for row in rows for image in row["images"] or [] if image] == [None]


def test_an_address_that_is_not_http_is_refused(site):
    with pytest.raises(RecipeError, match="http"):
        Html(path=str(site), url="ftp://ex.org/").check()


@pytest.mark.parametrize(("find", "books", "count"), [(fixture, 2, 8), (real_data, 3, 259)])
def test_real_books_are_read_with_all_their_images(find, books, count):
    rows = read_all(Html(path=str(find("B2_sites_with_images/gutenberg")))).to_pylist()
    images = [image for row in rows for image in row["images"] if image]
    assert (len(rows), len(images)) == (books, count) and all(image["data"] and image["reason"] is None for image in images)


def test_a_damaged_compressed_page_is_reported_with_its_place(tmp_path):
    packed = gzip.compress(b"<p>" + os.urandom(300_000).hex().encode())
    (tmp_path / "a.html.gz").write_bytes(packed[:-1000])
    (tmp_path / "b.html.gz").write_bytes(packed[:-1000] + b"\xff" * 1000)
    (tmp_path / "c.html.gz").write_bytes(b"no gzip")
    rows = read_all(Html(path=str(tmp_path))).to_pylist()
    assert [row["reason"] for row in rows] == ["bad_record"] * 3
    assert [row["place"].partition(",")[0] for row in rows] == ["a.html.gz", "b.html.gz", "c.html.gz"]
    assert all(int(row["place"].rpartition(" ")[2]) > 500_000 for row in rows[:2]) and rows[2]["place"] == "c.html.gz, byte 0"
    assert "end-of-stream" in rows[0]["problem"] and "Not a gzipped file" in rows[2]["problem"]
