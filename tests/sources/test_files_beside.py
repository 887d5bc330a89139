"""Texts beside images, in published forms, are found and read, or the row is dropped with a reason."""

import json
import os
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.readers.source_images import LARGEST
from vlmdata.sources.files import FACTS, TEXT, Files
from vlmdata.step import RecipeError


def rows_of(folder: Path, members: dict[str, bytes], form: str = "folder", **parameters: object) -> list[dict]:
    """Read members from a folder or a zip archive, with each row's file name as `file`."""
    path = folder / "images"
    if form == "folder":
        for name, data in members.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    else:
        path = folder / "images.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    rows = read_all(Files(path=str(path), **parameters)).to_pylist()
    return [{**row, "file": json.loads(row["extra"] or "{}").get("file_name", row["place"])} for row in rows]


def outcomes(rows: list[dict]) -> dict[str, str]:
    """Return each file's text, or the reason why its row was dropped."""
    return {row["file"].removeprefix("images.zip/"): row["reason"] or row["texts"][1]["text"] for row in rows}


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.txt", b"\xef\xbb\xbfwords", "words"),
        ("a.txt", "café".encode("utf-16"), "café"),
        ("a.text", "café".encode("utf-32"), "café"),
        ("a.caption", b"words\r\n", "words"),
        ("a.TXT", b"words", "words"),
        ("A.Txt", b"words", "words"),
        ("a.JPG.txt", b"words", "words"),
        ("a.jpg.Caption", b"words", "words"),
        ("a.json", b'\xef\xbb\xbf{"caption": "words"}', "words"),
        ("a.JSON", '{"caption": ["words"]}'.encode("utf-16"), "words"),
        ("a.json", b'{"caption": 7}', "7"),
        ("a.txt", "café".encode("latin-1"), "bad_encoding"),
        ("a.txt", "words".encode("utf-16-le"), "bad_encoding"),
        ("a.json", '{"caption": "café"}'.encode("latin-1"), "bad_encoding"),
        ("a.json", b"{", "bad_record"),
        ("a.json", b"[" * 10_000, "bad_record"),
        ("a.json", b'{"caption": {"en": "words"}}', "no_text"),
        ("a.json", b'{"caption": null}', "no_caption"),
        ("a.json", b"[1]", "no_caption"),
        ("a.txt", b"", "no_caption"),
        ("a.txt", b"\xef\xbb\xbf \n", "no_caption"),
        ("a.txt", b"x" * (TEXT + 1), "too_large"),
        ("a.json", b" " * (FACTS + 1), "too_large"),
        ("a.description", b"words", "no_caption"),
    ],
)
def test_a_text_beside_an_image_is_its_caption(tmp_path, form, name, data, found):
    (row,) = rows_of(tmp_path, {"a.JPG": picture(), name: data}, form)
    assert (row["reason"] or row["texts"][1]["text"]) == found
    if found in ("bad_encoding", "bad_record", "too_large"):
        assert row["place"].endswith(name) and row["problem"]


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["a.txt"], {"a.png": "a.txt", "A.PNG": ""}),
        (["A.TXT"], {"a.png": "", "A.PNG": "A.TXT"}),
        (["a.txt", "A.TXT"], {"a.png": "a.txt", "A.PNG": "A.TXT"}),
        (["a.png.TXT", "A.PNG.txt"], {"a.png": "a.png.TXT", "A.PNG": "A.PNG.txt"}),
    ],
)
def test_images_whose_names_differ_only_in_case_have_separate_texts(tmp_path, texts, found):
    for name in ("a.png", "A.PNG"):
        (tmp_path / name).write_bytes(picture())
    for name in texts:
        (tmp_path / name).write_text(name)
    rows = read_all(Files(path=str(tmp_path))).to_pylist()
    assert {json.loads(row["extra"])["file_name"]: row["texts"][1]["text"] for row in rows} == found


def test_the_recipe_sets_the_encoding_and_the_extensions_of_captions(tmp_path):
    members = {"a.png": picture(), "a.cap": "café".encode("latin-1"), "b.PIC": picture(9), "b.cap": "ü".encode("latin-1")}
    source = {"encoding": "latin-1", "captions": [".cap"], "images": [".pic", ".png"]}
    assert outcomes(rows_of(tmp_path, members, **source)) == {"a.png": "café", "b.PIC": "ü"}
    with pytest.raises(RecipeError, match=r"must hold file endings with a dot, such as '\.txt', not 'txt'"):
        Files(path=str(tmp_path), captions=["txt"]).check()


def test_several_texts_become_alternatives_and_images_of_one_name_share_them(tmp_path):
    members = {"a.png": picture(), "a.jpg": picture(9), "a.txt": b"one", "a.jpg.txt": b"two", "a.json": b'{"caption": "three"}'}
    rows = {row["file"]: row["texts"][1] for row in rows_of(tmp_path, members)}
    assert [rows[name]["text"] for name in ("a.jpg", "a.png")] == ["two", "one"]
    assert [rows[name]["alternatives"] for name in ("a.jpg", "a.png")] == [["one", "three"], ["three"]]


@pytest.mark.parametrize(
    ("members", "parameters", "found"),
    [
        ({"a.png": picture(), "b.png": picture(9), "b.txt": b"words"}, {}, {"a.png": "no_caption", "b.png": "words"}),
        ({"a.png": picture(), "b.png": picture(9), "readme.txt": b"words"}, {}, {"a.png": "", "b.png": ""}),
        ({"a.png": picture(), "a.xmp": b"x"}, {"captions": [], "caption": ""}, {"a.png": ""}),
    ],
)
def test_an_image_without_a_caption_is_reported_only_if_the_folder_has_captions(tmp_path, members, parameters, found):
    assert outcomes(rows_of(tmp_path, members, **parameters)) == found


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_an_unreadable_image_gives_a_row_with_a_reason(tmp_path, form):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    members = {"a.heic": heic, "b.JXL": b"\xff\x0a" + bytes(9), "c.svg": b"<svg/>", "d.heic": picture(), "e.jpg": b"x"}
    expected = dict.fromkeys(("a.heic", "b.JXL", "c.svg"), "unsupported_format") | {"d.heic": "", "e.jpg": "not_an_image"}
    assert outcomes(rows_of(tmp_path, members, form)) == expected


def test_paths_outside_the_folder_and_special_files_are_never_opened(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(picture())
    (tmp_path / "secret.txt").write_text("secret")
    for name in "abc":
        (folder / f"{name}.png").write_bytes(picture())
    os.symlink(tmp_path / "secret.png", folder / "link.png")
    os.symlink(tmp_path / "secret.txt", folder / "a.txt")
    os.mkfifo(folder / "b.txt")
    os.mkfifo(folder / "pipe.png")
    os.symlink(folder / "gone", folder / "gone.png")
    os.symlink("inside.txt", folder / "c.txt")
    (folder / "inside.txt").write_text("words")
    rows, others = rows_of(tmp_path, {}), Counter()
    assert outcomes(rows) == {"a.txt": "outside_folder", "b.txt": "no_file", "c.png": "words", "link.png": "outside_folder"}
    source = Files(path=str(folder))
    assert sum(len(table) for piece in source.pieces() for table in source.read_counting(piece, others)) == 4
    assert others == {"no_file": 2, "text_without_image": 1}


def test_an_image_too_large_to_be_read_gives_a_row_with_a_reason(tmp_path):
    rows_of(tmp_path, {"a.png": picture(), "b.png": picture()})
    os.truncate(tmp_path / "images/a.png", LARGEST + 1)
    assert outcomes(rows_of(tmp_path, {})) == {"a.png": "too_large", "b.png": ""}


def test_a_file_name_that_is_not_utf8_is_read(tmp_path):
    (tmp_path / "images").mkdir()
    for name, data in (("caf\udce9.png", picture()), ("caf\udce9.txt", b"words")):
        (tmp_path / "images" / name).write_bytes(data)
    (row,) = rows_of(tmp_path, {})
    assert (row["file"], row["texts"][1]["text"], row["images"][0]["data"]) == ("caf?.png", "words", picture())


def test_the_address_in_a_json_or_a_table_stays_with_the_image(tmp_path):
    members = {"a.png": picture(), "a.json": b'{"caption": "x", "url": "https://a.org/1.png"}'}
    (row,) = rows_of(tmp_path, members)
    assert (row["images"][0]["url"], json.loads(row["extra"])) == ("https://a.org/1.png", {"file_name": "a.png"})
    (tmp_path / "images/m.csv").write_text("file_name,caption,url\na.png,x,https://a.org/1.png\n")
    for extra in ("all", []):
        (row,) = read_all(Files(path=str(tmp_path / "images"), table="m.csv", extra=extra)).to_pylist()
        assert (row["images"][0]["url"], json.loads(row["extra"])) == ("https://a.org/1.png", {"file_name": "a.png"})
