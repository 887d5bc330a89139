"""A body with a wrong, too general or missing type is classified by its bytes; a page stays a page."""

import gzip
import zipfile
from io import BytesIO

import pytest

from tests.images.pictures import photo, saved
from vlmdata.archives.sniff import sort_of

SVG = b'<?xml version="1.0"?><!-- a --><!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg"><path/></svg>'
IMAGES = {name: saved(photo(64, 48), name) for name in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "ICO")}
IMAGES |= {"SVG": SVG, "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(20)}
USELESS = (
    "text/html",
    "application/xhtml+xml",
    "text/plain",
    "application/octet-stream",
    "image/x-foo",
    "idontexist",
    "*/*",
    "",
)


def zipped() -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a", "<p>")
    return out.getvalue()


OTHERS = {
    "pdf": (b"%PDF-1.7\n<html>", "application"),
    "zip": (zipped(), "application"),
    "gzip": (gzip.compress(b"<html>" * 100), "application"),
    "noise": (b"\x01\x02words\x03" * 30, "application"),
    "mp3": (b"ID3\x04\0\0\0\0\0", "audio"),
    "mp4": (b"\0\0\0\x20ftypisom\0\0\2\0", "video"),
    "webm": (b"\x1a\x45\xdf\xa3\x01\0", "video"),
    "woff": (b"wOF2\0\x01\0\0", "font"),
    "json": (b'\n{"html": "<p>words</p>"}\n', "application"),
    "list": (b'[{"a": 1}]', "application"),
    "guarded": (b")]}',\n[[1, 2]]", "application"),
    "feed": (b"<?xml version='1.0'?><rss><item>", "application"),
    "script": (b"/*! a */ (function(a, b) { document.write('<p>'); })();", "text"),
    "variable": (b"\xef\xbb\xbfvar page = '<html>';", "text"),
    "jsonp": (b'callback({"a": "<p>"});', "text"),
    "style": (b"@charset 'utf-8'; p { color: red }", "text"),
    "rules": (b".menu > li, a:hover{color:#fff}", "text"),
}
PAGES = {
    "plain": b"<html><p>Words",
    "doctype": b"\xef\xbb\xbf \n<!DOCTYPE html><p>Words",
    "fragment": b"<p>Words",
    "prose": b'Smith ("John") wrote var x and { y }, and a function (of it).',
    "empty": b"",
    "xhtml": b"<?xml version='1.0'?><!DOCTYPE html PUBLIC 'x'><html>",
    "warning": b"Warning: include() failed\n<html><body>Words",
    "comment": b"/* left over */ body{} \n<html><body>Words",
    "holes": b"<p>Words" + bytes(5000),
    "wide": "<html><p>Words".encode("utf-16-le"),
    "control": b"\x01<html><p>Words",
    "drawing": b'<svg viewBox="0 0 1 1"><path/></svg><div>Words</div>',
    "name": b"OTTO III. was an emperor. GIF89a is a format.",
    "brackets": b"[1] A note, and [2] another.",
}


@pytest.mark.parametrize("declared", USELESS)
def test_images_are_recognized_under_every_type(declared):
    assert {name: sort_of(declared, data) for name, data in IMAGES.items()} == dict.fromkeys(IMAGES, "image")


def test_html_is_a_page_unless_its_bytes_show_another_format():
    assert {name: sort_of("text/html", data) for name, data in PAGES.items()} == dict.fromkeys(PAGES, "page")
    assert {name: sort_of("text/html", data) for name, (data, _) in OTHERS.items()} == {
        n: sort for n, (_, sort) in OTHERS.items()
    }


@pytest.mark.parametrize("declared", ["", "idontexist", "*/*", "unknown/unknown", "text/"])
def test_a_page_without_a_type_is_recognized_by_its_first_tag(declared):
    recognized = ("plain", "doctype", "fragment", "xhtml")
    assert [sort_of(declared, PAGES[name]) for name in recognized] == ["page"] * len(recognized)
    assert [sort_of(declared, data) for data in (b"", b"Words", PAGES["warning"], b'{"a": 1}')] == ["other"] * 4
    assert sort_of(declared, OTHERS["pdf"][0]) == "application"


def test_any_other_type_is_trusted():
    types = ("text/plain", "application/json", "video/mp4", "strange/thing", "image/png")
    assert [sort_of(declared, PAGES["plain"]) for declared in types] == ["text", "application", "video", "other", "image"]


@pytest.mark.parametrize(
    "body", [b"<?" * 5000, b"<!><!" * 5000, b"/*" * 5000, b"<" * 9000, b"[" * 9000, b"function " * 2000, b"!(" * 9000]
)
def test_hostile_bodies_are_classified_quickly(body):
    assert sort_of("text/html", body) in ("page", "text") and sort_of("", body) == "other"
