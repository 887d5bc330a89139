import gzip
import io
import json
import tarfile

import pytest

from tests.fixtures import fixture
from tests.loader.tars import write_tar
from tests.real_data import real_data
from tests.sources.pictures import picture
from tests.sources.reading import pairs_of, read_all
from vlmdata.engine.store.blob_bytes import read_blob
from vlmdata.sources.webdataset import Webdataset


def only_image(row: dict) -> dict:
    return next(image for image in row["images"] if image)


def test_image_bytes_stay_in_the_tar_and_sizes_are_read_from_them(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        {"one.png": picture(), "one.txt": "a caption ü".encode(), "one.json": b'{"url": "http://a.org/", "n": 1}'}.items(),
    )
    (row,) = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    image = only_image(row)
    assert read_blob(None, image["blob"], image["offset"], image["size"]) == picture()
    assert (image["format"], image["width"], image["original_height"], image["url"]) == ("png", 8, 6, "http://a.org/")
    assert (row["texts"][1]["text"], json.loads(row["extra"])) == ("a caption ü", {"n": 1, "source_key": "one"})


def test_images_of_a_compressed_tar_are_passed_on_as_bytes(tmp_path):
    write_tar(tmp_path / "a.tar", {"one.png": picture(), "one.txt": b"x"}.items())
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    plain, packed = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    assert only_image(packed)["data"] == picture() and only_image(packed)["blob"] is None
    assert only_image(packed)["sha256"] == only_image(plain)["sha256"]


def test_every_sample_of_a_bad_tar_is_accounted_for(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        {
            "1.png": picture(),
            "2.txt": b"no image",
            "3.jpg": b"<html>",
            "3.txt": b"x",
            "4.png": picture(),
            "4.json": b"{",
            "5.png": picture(),
        }.items(),
    )
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: whole.index(b"5.png") + 520])
    assert read_all(Webdataset(path=str(tmp_path)))["reason"].to_pylist() == [
        None,
        "no_image",
        "not_an_image",
        "bad_record",
        "bad_record",
    ]


def test_tars_with_the_same_name_in_two_folders_give_separate_rows(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / "0.tar", {"1.png": picture()}.items())
    source = Webdataset(path=str(tmp_path))
    ids = [i for piece in source.pieces() for table in source.read(piece) for i in table["id"].to_pylist()]
    assert ids == ["a/0.tar/1", "b/0.tar/1"]


def test_only_top_level_tars_of_a_dataset_from_vlmdata_are_read(tmp_path):
    (tmp_path / "work").mkdir()
    for name in ("00000.tar", "work/00000.abc.tar"):
        write_tar(tmp_path / name, {"1.png": picture()}.items())
    assert len(read_all(Webdataset(path=str(tmp_path)))) == 2
    (tmp_path / "manifest.json").write_text("{}")
    assert len(read_all(Webdataset(path=str(tmp_path)))) == 1


def test_captions_in_the_json_and_several_images_are_read(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        {
            "1.png": picture(),
            "1.json": b'{"caption": ["one", "two"]}',
            "2.0.png": picture(),
            "2.1.png": picture(9),
            "2.txt": b"both",
        }.items(),
    )
    one, two = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    assert (one["texts"][1]["text"], one["texts"][1]["alternatives"]) == ("one", ["two"])
    assert [image and image["width"] for image in two["images"]] == [8, 9, None]
    assert two["texts"][2]["text"] == "both"


def test_a_document_from_vlmdata_is_read_without_loss(tmp_path):
    facts = {
        "texts": [None, "question", None, "answer"],
        "images": ["http://a.org/1", None, None, None],
        "metadata": [
            {"file": "0.png", "alt": "x", "phash": "00000000000000ff", "boxes": [[0, 0, 1, 1]]},
            None,
            {"file": "1.png"},
            None,
        ],
        "roles": ["user", "user", "user", "assistant"],
        "alternatives": [None, None, None, ["other"]],
        "url": "http://a.org/page",
        "scores": {"clip_score": 0.25},
        "topic": "kept",
    }
    write_tar(tmp_path / "a.tar", {"k.0.png": picture(), "k.1.png": picture(9), "k.json": json.dumps(facts).encode()}.items())
    (row,) = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    assert [text and text["text"] for text in row["texts"]] == facts["texts"]
    assert (row["roles"], row["url"], row["texts"][3]["alternatives"]) == (facts["roles"], facts["url"], ["other"])
    first, second = row["images"][0], row["images"][2]
    assert (first["url"], first["alt"], first["phash"], first["boxes"], second["width"]) == (
        "http://a.org/1",
        "x",
        255,
        [[0, 0, 1, 1]],
        9,
    )
    assert json.loads(row["extra"]) == {"topic": "kept", "source_key": "k", "earlier_scores": {"clip_score": 0.25}}


@pytest.mark.parametrize(
    ("find", "folder", "count", "has_texts"),
    [
        (fixture, "img2dataset_tar", 8, True),
        (fixture, "gnu_tar", 7, False),
        (real_data, "torchtitan_cc12m/cc12m_test", 32, True),
        (real_data, "clip-retrieval/test_clip_inference/test_tars", 11, False),
    ],
)
def test_tars_from_other_tools_are_read(find, folder, count, has_texts):
    rows = read_all(Webdataset(path=str(find(f"F_vlm_repo_testdata/{folder}"))))
    assert (len(rows), rows["drop"].null_count) == (count, count)
    assert [bool(text) for _, text, _ in pairs_of(rows)] == [has_texts] * count


@pytest.mark.parametrize(
    "facts",
    [
        {"phash": "zz"},
        {"phash": "f" * 17},
        {"phash": "-1"},
        {"sha256": "Z" * 64},
        {"boxes": [["a", 0, 1, 1]]},
        {"boxes": [[None, 0, 1, 1], [float("nan"), 0, 1, 1], [1, 2]]},
        {"boxes": "none"},
        {"original_width": 10**12, "rendered_height": -1, "original_height": True},
        {"time_s": float("inf")},
        {"alternatives": "text"},
        {"alternatives": [1, None]},
        {"caption": [None]},
    ],
)
def test_image_facts_of_a_wrong_type_are_left_out(tmp_path, facts):
    write_tar(tmp_path / "a.tar", {"one.png": picture(), "one.txt": b"x", "one.json": b"{}"}.items())
    (plain,) = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    write_tar(tmp_path / "a.tar", {"one.png": picture(), "one.txt": b"x", "one.json": json.dumps(facts).encode()}.items())
    (row,) = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    unlike = {name for name in plain if row[name] != plain[name]} - {"extra", "images"}
    image, bare = only_image(row), only_image(plain)
    assert not unlike and {name for name in bare if image[name] != bare[name]} <= {"offset"}  # a longer JSON precedes it


@pytest.mark.parametrize(
    "facts",
    [
        {"texts": ["a"], "metadata": [], "images": [None]},
        {"texts": ["a"], "metadata": [None]},
        {"texts": [None], "metadata": [{}], "images": ["http://a.org/"]},
        {"texts": [None], "metadata": [None], "images": [None]},
        {"texts": [5], "metadata": [None], "images": [None]},
        {"texts": ["a"], "metadata": [None], "images": [None], "roles": ["user", "user"]},
        {"texts": ["a"], "metadata": [None], "images": [None], "roles": [1]},
        {"texts": ["a"], "metadata": [None], "images": [None], "alternatives": 5},
    ],
)
def test_documents_from_other_tools_with_unaligned_lists_lose_only_one_row(tmp_path, facts):
    good = {"texts": ["a"], "metadata": [None], "images": [None], "url": 7}
    write_tar(tmp_path / "a.tar", {"1.json": json.dumps(facts).encode(), "2.json": json.dumps(good).encode()}.items())
    assert read_all(Webdataset(path=str(tmp_path)))["reason"].to_pylist() == ["bad_record", None]


TALK = {"texts": ["a", "b"], "metadata": [None] * 2, "images": [None] * 2, "roles": ["user", "assistant"], "url": None}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"roles": ["user", "judge"]}, "unknown_role"),
        ({"turns": [None]}, "bad_turns"),
        ({"turns": "none"}, "bad_turns"),
        ({"turns": [None, {"kind": "song"}]}, "bad_turns"),
        ({"turns": [None, {"train": 0}]}, "bad_turns"),
        ({"turns": [None, {"mood": "good"}]}, "bad_turns"),
        ({"tools": ["w"]}, "bad_tools"),
        ({"turns": None, "tools": None}, None),
    ],
)
def test_turns_and_tools_in_another_form_are_dropped_with_the_reason(tmp_path, more, reason):
    write_tar(tmp_path / "a.tar", {"1.json": json.dumps({**TALK, **more}).encode()}.items())
    assert read_all(Webdataset(path=str(tmp_path)))["reason"].to_pylist() == [reason]


def llava(*values: str, **more: object) -> dict:
    return {"conversations": [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(values)], **more}


def spoken(tmp_path, facts: object, **members: bytes) -> dict:
    """Return the row of a sample `k` with these members (`png_0` for `0.png`) and a JSON."""
    named = {f"k.{'.'.join(reversed(name.split('_')))}": data for name, data in members.items()}
    write_tar(tmp_path / "a.tar", {**named, "k.json": json.dumps(facts).encode()}.items())
    (row,) = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    return row


@pytest.mark.parametrize(
    "facts",
    [
        llava("<image>\nWhat?", "It.", id=7, url="https://a.org/1.png"),
        llava("What?", "It.", id=7, image="coco/1.jpg", url="https://a.org/1.png"),
    ],
)
def test_conversations_from_other_tools_are_read_as_conversations(tmp_path, facts):
    row = spoken(tmp_path, facts, png=picture())
    assert (row["drop"], row["roles"]) == (None, ["user", "user", "assistant"])
    assert [text and text["text"] for text in row["texts"]] == [None, "What?", "It."]
    image = row["images"][0]
    assert (image["width"], image["blob"], image["url"]) == (8, str(tmp_path / "a.tar"), "https://a.org/1.png")
    assert json.loads(row["extra"]) == {"id": 7, "source_key": "k"}


def test_conversations_without_images_or_with_tools_are_read(tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho", "weight": 0}]
    assert spoken(tmp_path, turns)["turns"] == [None, '{"train": false}']
    row = spoken(tmp_path, {"messages": turns, "tools": [{"name": "w"}]})
    assert (row["drop"], row["tools"], json.loads(row["extra"])) == (None, '[{"name": "w"}]', {"source_key": "k"})


def test_images_named_in_the_json_are_the_members_of_these_names(tmp_path):
    facts = llava("<image><image>Which?", "Both.", image=["https://a.org/1.png", "0.png"])
    row = spoken(tmp_path, facts, png_0=picture(8), png_1=picture(9))
    assert [(image["width"], image["url"]) for image in row["images"][:2]] == [(9, "https://a.org/1.png"), (8, None)]


@pytest.mark.parametrize(
    ("facts", "members", "reason"),
    [
        (llava("<image><image>Which?", "Both."), {"png": picture()}, "more_placeholders_than_images"),
        (llava("<image>What?", " "), {"png": picture()}, "empty_answer"),
        (llava("<image>What?", "It."), {"heic": b"\0\0\0\x18ftypheic"}, "unsupported_format"),
        (llava("<image>What?", "It."), {"png": b"none"}, "not_an_image"),
    ],
)
def test_conversations_from_other_tools_that_do_not_match_have_the_reason(tmp_path, facts, members, reason):
    assert spoken(tmp_path, facts, **members)["reason"] == reason


@pytest.mark.parametrize(
    "facts", [llava("<image>Q", "A", caption="c"), {"conversations": ["c"], "caption": "c"}, {"caption": "c"}]
)
def test_a_caption_is_preferred_to_turns(tmp_path, facts):
    row = spoken(tmp_path, facts, png=picture())
    assert ([text["text"] for text in row["texts"] if text], row["roles"]) == (["c"], None)
    boxes = [{"label": "cat", "box": [0, 0, 1, 1]}]
    assert spoken(tmp_path, boxes, png=picture())["drop"] is None


def test_fields_called_turns_and_tools_of_other_samples_are_carried(tmp_path):
    own = {"turns": [1], "tools": ["hammer"]}
    page = {name: value for name, value in TALK.items() if name != "roles"}
    write_tar(tmp_path / "a.tar", {"1.json": json.dumps({**page, **own}).encode()}.items())
    (row,) = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    assert (row["turns"], row["tools"], json.loads(row["extra"])) == (None, None, {**own, "source_key": "1"})


def test_a_tar_that_ends_inside_a_block_is_reported_as_truncated(tmp_path):
    write_tar(tmp_path / "a.tar", {"0.png": picture(), "0.txt": b"lost"}.items())
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: 512 + len(picture()) + 20])
    sample, cut = read_all(Webdataset(path=str(tmp_path / "a.tar"))).to_pylist()
    assert (sample["reason"], cut["reason"]) == ("bad_record", "bad_record")
    assert cut["problem"] == "the file ends within the last block of '0.png', so it may be cut off"
    # unpadded, as some writers leave the last member
    (tmp_path / "a.tar").write_bytes(whole[:1024] + whole[1024:1536] + b"lost")
    sample, cut = read_all(Webdataset(path=str(tmp_path / "a.tar"))).to_pylist()
    assert (sample["reason"], sample["texts"][1]["text"], cut["reason"]) == (None, "lost", "bad_record")


def test_an_empty_tar_is_reported_as_damaged(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"")
    (row,) = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    assert (row["reason"], row["place"], row["problem"]) == ("bad_record", "a.tar, byte 0", "the file is empty")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("record", [b"0 comment=abcd\n", b"1 comment=abcd\n", b"3x comment=abc\n", b"12 size=many\n  "])
def test_invalid_pax_records_are_reported_as_damage(tmp_path, record):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("one.png")
        info.size, info.pax_headers = len(picture()), {"comment": "abc"}
        tar.addfile(info, io.BytesIO(picture()))
    data = (tmp_path / "a.tar").read_bytes()
    assert data.count(b"15 comment=abc\n") == 1
    (tmp_path / "a.tar").write_bytes(data.replace(b"15 comment=abc\n", record))
    (row,) = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    assert (row["reason"], row["place"]) == ("bad_record", "a.tar, byte 0") and "a pax header" in row["problem"]


def test_a_negative_size_is_reported_as_damage(tmp_path):
    write_tar(tmp_path / "a.tar", {"one.png": picture()}.items())
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[124:136] = b"-0000000001\0"
    (tmp_path / "a.tar").write_bytes(data)
    assert read_all(Webdataset(path=str(tmp_path)))["reason"].to_pylist() == ["bad_record"]
