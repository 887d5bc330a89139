"""A sample's image and caption are found by the names of their members, or the row has a reason."""

import pytest
import webdataset

from tests.loader.tars import END, file, header, write_tar
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata import stream
from vlmdata.cli import main
from vlmdata.loader.stream import ReadOptions
from vlmdata.sources.webdataset import Webdataset
from vlmdata.step import RecipeError


def made(folder, names, **options):
    """Return (caption or reason, number of images) of each row of a tar with these members. The content of a text is its
    name."""
    files = [(name, picture() if name.lower().endswith((".png", ".heic")) else name.encode()) for name in names]
    write_tar(folder / "a.tar", files)
    rows = read_all(Webdataset(path=str(folder), **options)).to_pylist()
    texts = [[text["text"] for text in row["texts"] or [] if text] for row in rows]
    images = [sum(image is not None for image in row["images"] or []) for row in rows]
    return [(row["reason"] or (text[0] if text else None), count) for row, text, count in zip(rows, texts, images, strict=True)]


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["22.05.png", "22.05.txt"], [("22.05.txt", 1)]),
        (["22.05.PNG", "22.05.TXT"], [("22.05.TXT", 1)]),
        (["22.05.png", "22.05.seg.png", "22.05.txt"], [("22.05.txt", 2)]),
        (["5.1.png", "5.1.txt", "5.2.png", "5.2.txt", "5.3.png"], [("5.1.txt", 1), ("5.2.txt", 1), ("", 1)]),
        (["5.1.png", "5.1.png.txt", "5.2.png", "5.2.png.txt"], [("5.1.png.txt", 1), ("5.2.png.txt", 1)]),
        (["v1.0/a.b/1.png", "v1.0/a.b/1.txt"], [("v1.0/a.b/1.txt", 1)]),
        (["z.input.png", "z.outputs.txt"], [("z.outputs.txt", 1)]),
        (["0.left.png", "0.right.png", "0.txt"], [("0.txt", 2)]),
        (["0.png", "0.en.txt", "0.txt"], [("0.txt", 1)]),
        (["0.png", "0.en.txt", "0.de.txt"], [("several_captions", 0)]),
        (["1.png"], [("", 1)]),
        (["1.5.heic", "1.5.txt"], [("1.5.txt", 1)]),
        (["1.jxl", "1.txt"], [("not_an_image", 1)]),
        (["1.txt"], [("no_image", 0)]),
    ],
)
def test_captions_are_found_for_any_dots_in_names_or_the_row_is_dropped(tmp_path, names, rows):
    assert made(tmp_path, names) == rows


@pytest.mark.parametrize(
    ("options", "row"),
    [
        ({"image": "input.png", "caption": ["outputs.txt"]}, ("z.outputs.txt", 1)),
        ({"image": [".target.PNG"], "caption": [".negative.txt", "outputs.txt"]}, ("z.negative.txt", 1)),
        ({"image": ["input.png", "target.png"], "caption": ["outputs.txt"]}, ("z.outputs.txt", 2)),
        ({"image": "input.png", "caption": ["prompt"]}, ("no_caption", 0)),
        ({"image": "jpg", "caption": ["outputs.txt"]}, ("no_image", 0)),
    ],
)
def test_parameters_name_the_image_and_the_caption(tmp_path, options, row):
    names = ["z.input.png", "z.target.png", "z.outputs.txt", "z.negative.txt"]
    assert made(tmp_path, names, **options) == [row]


def test_named_members_with_dots_are_grouped_as_webdataset_groups(tmp_path):
    names = ["0.left.png", "0.left.txt", "0.right.png", "0.right.txt"]
    assert made(tmp_path, names) == [("0.left.txt", 1), ("0.right.txt", 1)]
    assert made(tmp_path, names, image="left.png", caption=["right.txt"]) == [("0.right.txt", 1)]


@pytest.mark.parametrize(
    "names",
    [
        ["0.left.jpg", "0.right.jpg", "0.txt"],
        ["0.a.jpg", "0.a.txt", "0.b.jpg", "0.b.cls", "0.json"],
        ["0.left.jpg", "0.left.json", "0.caption.txt"],
        ["0.left.jpg", "0.right.jpg"],
        ["0.05.jpg"],
        ["0.a.npy", "0.a.txt"],
    ],
)
def test_names_that_webdataset_groups_are_grouped_in_the_same_way(tmp_path, names):
    tar = write_tar(tmp_path / "tars" / "a.tar", [(name, name.encode()) for name in names])
    theirs = list(webdataset.WebDataset([str(tar)], shardshuffle=False, empty_check=False))
    ours = list(stream(tar, seed=None, reading=ReadOptions(cache=tmp_path), torch=False))
    bare = [
        [{k: v for k, v in sample.items() if k == "__key__" or k[:2] != "__"} for sample in some] for some in (ours, theirs)
    ]
    assert bare[0] == bare[1]


def test_the_loader_finds_the_samples_of_the_source(tmp_path):
    tar = write_tar(
        tmp_path / "tars" / "a.tar", [(name, name.encode()) for name in ("22.05.png", "22.05.txt", "22.06.png", "22.06.txt")]
    )
    samples = list(stream(tar, seed=None, reading=ReadOptions(cache=tmp_path), torch=False))
    assert [(sample["__key__"], sample["txt"]) for sample in samples] == [("22.05", b"22.05.txt"), ("22.06", b"22.06.txt")]


def test_the_encoding_of_captions_is_a_parameter_or_a_byte_order_mark(tmp_path):
    texts = {"1": "\ufeffmarked".encode(), "2": "märked".encode("utf-16"), "3": "été".encode("latin-1")}
    write_tar(
        tmp_path / "a.tar", [pair for key, text in texts.items() for pair in ((f"{key}.png", picture()), (f"{key}.txt", text))]
    )
    rows = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    assert [row["texts"][1]["text"] for row in rows[:2]] == ["marked", "märked"]
    assert (rows[2]["reason"], rows[2]["place"]) == ("bad_encoding", "a.tar, byte 4096")
    assert rows[2]["problem"].startswith("sample '3': its caption 'txt' cannot be decoded: 'utf-8' codec")
    stated = read_all(Webdataset(path=str(tmp_path), encoding="latin-1")).to_pylist()
    assert [row["texts"][1]["text"] for row in stated] == ["marked", "märked", "été"]


def test_a_blank_caption_does_not_hide_another(tmp_path):
    write_tar(tmp_path / "a.tar", [("1.png", picture()), ("1.txt", b" \n"), ("1.json", b'{"caption": "of the JSON"}')])
    (row,) = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    assert row["texts"][1]["text"] == "of the JSON"


def test_pictures_in_unsupported_formats_are_reported(tmp_path):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    write_tar(tmp_path / "a.tar", [("1.heic", heic), ("1.txt", b"x"), ("2.jxl", b"\xff\x0a" + bytes(9)), ("2.txt", b"x")])
    assert read_all(Webdataset(path=str(tmp_path)))["reason"].to_pylist() == ["unsupported_format"] * 2


def test_a_sample_whose_caption_is_damaged_is_reported(tmp_path):
    pair = file(b"a.png", picture()) + file(b"a.txt", b"words")
    cut = file(b"b.png", picture()) + header(b"b.txt", 99_999)
    (tmp_path / "a.tar").write_bytes(pair + cut + file(b"c.png", picture()) + file(b"c.txt", b"words") + END)
    rows = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    size = len(pair)
    assert [(row["reason"], row["place"]) for row in rows] == [
        (None, "a.tar, byte 0"),
        ("bad_record", f"a.tar, byte {size}"),
        (None, f"a.tar, byte {size + len(cut)}"),
        ("bad_record", f"a.tar, byte {size + len(cut) - 512}"),
    ]


def test_parameters_that_cannot_work_are_reported_by_check(tmp_path):
    write_tar(tmp_path / "a.tar", [("1.png", picture())])
    for options, what in (({"encoding": "hex"}, "encoding 'hex'"), ({"image": []}, "image must name at least one")):
        with pytest.raises(RecipeError, match=what):
            Webdataset(path=str(tmp_path), **options).check()


def test_check_reports_captions_under_other_names_than_expected(tmp_path, capsys):
    facts = b'{"headline": "words"}'
    write_tar(tmp_path / "a.tar", [pair for key in "12" for pair in ((f"{key}.png", picture()), (f"{key}.json", facts))])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"source: {{type: webdataset, path: {tmp_path / 'a.tar'}}}")
    assert main(["check", str(recipe)]) == 0
    warning = "2 of the first 2 samples of a.tar have an image and no caption. The first such sample has the members and fields"
    assert capsys.readouterr().err == f"vlmdata: {warning} headline, json, png. Set `caption` to one of them\n"
    assert main(["check", str(recipe), "--set", "source.caption=[headline]"]) == 0
    assert capsys.readouterr().err == ""


def test_a_too_large_caption_or_json_is_reported(tmp_path):
    large = [("1.txt", b"x" * ((1 << 20) + 1)), ("2.json", b" " * ((1 << 24) + 1))]
    write_tar(tmp_path / "a.tar", [("1.png", picture()), ("2.png", picture()), *large])
    rows = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    assert [(row["reason"], row["problem"]) for row in rows] == [
        ("too_large", "sample '1': member '1.txt' has 1048577 bytes, more than the limit of 1048576"),
        ("too_large", "sample '2': member '2.json' has 16777217 bytes, more than the limit of 16777216"),
    ]


def test_only_links_inside_the_tar_are_followed_and_others_are_reported(tmp_path):
    links = (
        header(b"d/b.txt", 0, b"1", b"./a.txt")
        + header(b"d/c.png", 0, b"2", b"b.png")
        + header(b"d/c.txt", 0, b"2", b"../e.txt")
    )
    data = file(b"a.png", picture()) + file(b"a.txt", b"words") + file(b"d/b.png", picture(9)) + links
    data += header(b"f.png", 0, b"1", b"d/c.png") + header(b"f.txt", 0, b"1", b"f.txt") + file(b"e.txt", b"later")
    data += header(b"g.png", 0, b"2", b"/etc/hosts") + header(b"g.txt", 0, b"2", b"../../a.txt")
    (tmp_path / "a.tar").write_bytes(data + END)
    rows = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    texts = [row["reason"] or next(text["text"] for text in row["texts"] if text) for row in rows]
    assert texts == ["words", "words", "later", "bad_record", "no_image", *["bad_record"] * 3]
    assert [row["images"][0]["width"] for row in rows[:3]] == [8, 9, 9]
    assert [row["problem"] for row in rows[5:]] == [
        "'f.txt' is a hard link to 'f.txt', which is not in the tar. Write the tar with --hard-dereference",
        "'g.png' is a symbolic link to '/etc/hosts', which is not in the tar. Write the tar with --dereference",
        "'g.txt' is a symbolic link to '../../a.txt', which is not in the tar. Write the tar with --dereference",
    ]
