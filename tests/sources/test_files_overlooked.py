"""Files near images that are not read are reported: `check` suggests texts that may be captions, and archives are counted
anywhere."""

import json
import zipfile
from collections import Counter

import pytest

from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.cli import main
from vlmdata.sources.files import Files


def laid(folder, members):
    for name, data in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("name", "data", "hint"),
    [
        ("a.en.txt", b"x", "'a.en.txt' was not read. Set `captions: ['.en.txt']` to read such files"),
        ("A.EN.TXT", b"x", "'A.EN.TXT' was not read. Set `captions: ['.EN.TXT']` to read such files"),
        ("a_caption.txt", b"x", "Set `captions: ['_caption.txt']` to read such files"),
        ("a.xml", b"<x/>", "Set `captions: ['.xml']` to read such files"),
        ("sub/a.txt", b"x", "'sub/a.txt' is in another folder"),
        ("../labels/a.txt", b"x", "'../labels/a.txt' is in another folder"),
        ("captions.csv", b"file,text", "set `table: 'captions.csv'` to read it"),
        ("sub/captions.jsonl", b"{}", "set `table: 'sub/captions.jsonl'` to read it"),
        ("notes.txt", b"x", "'notes.txt' matches no image"),
        ("a.jsonl", b"{}", "set `table: 'a.jsonl'` to read it"),
        ("../other/a.csv", b"x", None),
        ("ab.txt", b"x", "'ab.txt' matches no image"),
        (
            "a.json",
            b'{"text": "x", "more": {"en": 1}}',
            "The fields of 'a.json' are text, more.en. Set `caption` to one of them",
        ),
        ("a.json", b'{"caption": {"en": "x"}}', "fields of 'a.json' are caption.en"),
        ("a.txt", b" ", None),
        ("a.txt", b"\xff", None),
        ("a.json", b"{", None),
        (".hidden.txt", b"x", None),
        ("a.bin", b"x", None),
    ],
)
def test_check_names_the_text_that_may_be_the_caption(tmp_path, name, data, hint):
    folder = laid(tmp_path / "images", {"a.png": picture(), name: data})
    for source in (Files(path=str(folder)), Files(path=str(folder / "*.png"))):
        warning = source.warning()
        assert warning is None if hint is None else hint in warning
        assert warning is None or warning.startswith(f"1 of the first 1 image of {source.path} has no caption. ")
    assert Files(path=str(folder), captions=[], caption="").warning() is None


@pytest.mark.parametrize("name", ["doc.json", "doc.txt", "sub/doc.json"])
def test_check_says_that_a_text_may_belong_to_several_images(tmp_path, name):
    folder = laid(tmp_path / "images", {f"sub/doc.{number}.png": picture() for number in range(2)} | {name: b"{}"})
    warning = Files(path=str(folder)).warning()
    expected = (
        "'sub/doc.json' may belong to several images, such as 'doc.0.png', and here each image is a row. To read documents"
    )
    assert (expected in warning) is (name == "sub/doc.json")


def test_the_parameter_in_the_hint_reads_the_text(tmp_path):
    folder = laid(
        tmp_path, {"a.png": picture(), "a.en.txt": b"one", "b.png": picture(9), "c.png": picture(7), "c_caption.txt": b"x"}
    )
    rows = read_all(Files(path=str(folder), captions=[".EN.txt", "_caption.txt"])).to_pylist()
    assert [row["reason"] or row["texts"][1]["text"] for row in rows] == ["one", "no_caption", "x"]


def test_check_reports_a_zip_in_python_and_on_the_command_line(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in {"images/a.png": picture(), "labels/a.txt": b"x", "__MACOSX/._a.txt": b"x"}.items():
            archive.writestr(name, data)
    recipe = {"source": {"type": "files", "path": str(tmp_path)}, "steps": [], "shards": {"layout": "captions"}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["check", str(tmp_path / "recipe.yaml")]) == 0
    output = capsys.readouterr().err
    assert output.count("\n") == 1 and "has no caption. 'labels/a.txt' is in another folder" in output


def test_nothing_is_suggested_if_most_images_have_captions(tmp_path):
    names = [f"{n}.png" for n in range(3)]
    folder = laid(tmp_path, {**dict.fromkeys(names, picture()), "0.txt": b"x", "1.txt": b"x", "2.de.txt": b"x"})
    assert Files(path=str(folder)).warning() is None


ARCHIVES = [
    "b.zip",
    "b.tar",
    "b.TAR.GZ",
    "b.tgz",
    "b.rar",
    "b.7z",
    "b.zip.001",
    "b.tar.zst",
    "sub/b.tar",
    "sub/deep/b.7z",
    "a.tar",
]


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_archives_and_texts_of_no_image_are_counted_in_every_folder(tmp_path, form):
    members = {"a.png": picture(), **dict.fromkeys(ARCHIVES, b"x"), "labels/a.txt": b"x", "a.tar.txt": b"x"}
    path = laid(tmp_path / "images", members)
    if form == "zip":
        path = tmp_path / "images.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    source, others = Files(path=str(path)), Counter()
    assert sum(len(table) for piece in source.pieces() for table in source.read_counting(piece, others)) == 1
    assert others == {"archive": len(ARCHIVES), "text_without_image": 2}


def test_a_tar_beside_zips_that_are_read_is_counted(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", picture())
    laid(tmp_path, {"b.tar": b"x"})
    source, others = Files(path=str(tmp_path)), Counter()
    assert sum(len(table) for piece in source.pieces() for table in source.read_counting(piece, others)) == 1
    assert others == {"archive": 1}
