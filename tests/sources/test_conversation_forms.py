"""Conversations in every published form are read by both sources of conversations."""

import gzip
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.pictures import picture
from tests.sources.reading import read_all
from tests.sources.test_llava_json import shown
from vlmdata.sources.llava_json import LlavaJson
from vlmdata.sources.messages import Messages
from vlmdata.step import RecipeError

LLAVA = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A square."}]
CHAT = [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A square."}]
PARTS = [
    {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A square."}]},
]
SHOWN = [("user", 8), ("user", "What?"), ("assistant", "A square.")]
BYTES = {"bytes": picture(), "path": None}
SOURCES = pytest.mark.parametrize("source", [LlavaJson, Messages])


def parquet(folder, record: dict) -> str:
    (folder / "1.png").write_bytes(picture())
    pq.write_table(pa.Table.from_pylist([record]), folder / "d.parquet")
    return str(folder / "d.parquet")


@SOURCES
@pytest.mark.parametrize(
    "turns",
    [
        {"conversations": LLAVA},
        {"messages": CHAT},
        {"messages": PARTS},
        {"conversations": CHAT},
        {"messages": LLAVA},
        {"conversations": json.dumps(LLAVA)},
        {"messages": json.dumps(CHAT)},
        {"conversations": [{"user": "<image>What?", "assistant": "A square.", "source": "x"}]},
        {"conversations": {"from": ["human", "gpt"], "value": ["<image>What?", "A square."]}},
        {"conversations": [{**a, **b} for a, b in zip(LLAVA, [{"role": None, "content": None}] * 2, strict=True)]},
    ],
)
@pytest.mark.parametrize("images", [{"image": BYTES}, {"images": [BYTES]}, {"image": "1.png"}, {"images": ["1.png"]}])
def test_every_form_in_parquet_gives_the_same_row(tmp_path, source, turns, images):
    (row,) = read_all(source(path=parquet(tmp_path, {"id": 7, **turns, **images}))).to_pylist()
    assert (row["reason"], shown(row), row["extra"]) == (None, SHOWN, '{"id": 7}')


@SOURCES
@pytest.mark.parametrize(
    "images",
    [
        {"image": picture()},
        {"images": [picture()]},
        {"image": None, "images": [BYTES]},
        {"images": [], "image": BYTES},
        {"image": json.dumps(["1.png"])},
        {"image": {"bytes": b"", "path": "1.png"}},
    ],
)
def test_images_beside_the_turns_are_read(tmp_path, source, images):
    (row,) = read_all(source(path=parquet(tmp_path, {"conversations": LLAVA, **images}))).to_pylist()
    assert (row["reason"], shown(row)) == (None, SHOWN)


@SOURCES
@pytest.mark.parametrize(
    "none", [{}, {"image": None}, {"images": []}, {"images": [None]}, {"image": {"bytes": None, "path": None}}]
)
def test_conversations_without_images_are_read_from_parquet_too(tmp_path, source, none):
    turns = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]
    path = parquet(tmp_path, {"conversations": turns, **none})
    (row,) = read_all(source(path=path)).to_pylist()
    assert (row["reason"], shown(row)) == (None, [("user", "Hello"), ("assistant", "Hi")])


@SOURCES
@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"conversations": "What? A square."}, "no_turns"),
        ({"conversations": "[broken"}, "no_turns"),
        ({"conversations": None, "messages": CHAT[:1]}, "no_assistant_turn"),
        ({"conversations": {"from": ["human"], "value": ["a", "b"]}}, "no_turns"),
        ({"conversations": [{"user": "What?", "assistant": None}]}, "no_text"),
        ({"conversations": [{"question": "What?", "answer": "A square."}]}, "no_text"),
        ({"conversations": [{"from": 7, "value": "What?"}]}, "unknown_role"),
        ({"conversations": LLAVA}, "more_placeholders_than_images"),
        ({"conversations": LLAVA, "image": {"bytes": None, "path": "simplecache::http://127.0.0.1:9/a"}}, "not_a_path"),
        ({"conversations": LLAVA, "image": {"bytes": None, "path": "../1.png"}}, "outside_folder"),
    ],
)
def test_every_refused_form_has_a_reason(tmp_path, source, record, reason):
    assert read_all(source(path=parquet(tmp_path, record)))["reason"].to_pylist() == [reason]


@pytest.mark.parametrize("source", [LlavaJson, Messages])
def test_turns_that_are_texts_lose_their_row_or_are_refused_in_all_rows(tmp_path, source):
    texts = {"conversations": ["What?", "A square."]}
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(texts)}\n{json.dumps({'conversations': LLAVA[1:]})}\n")
    assert read_all(source(path=str(tmp_path / "a.jsonl")))["reason"].to_pylist()[0] == "no_turns"
    with pytest.raises(RecipeError, match=r"the values are list<.*string>, not lists of turns"):
        read_all(source(path=parquet(tmp_path, texts)))


@SOURCES
def test_an_image_keeps_the_address_beside_it(tmp_path, source):
    path = parquet(tmp_path, {"conversations": LLAVA, "image": BYTES, "url": "https://a.org/1.png"})
    (row,) = read_all(source(path=path)).to_pylist()
    assert (row["images"][0]["url"], row["images"][0]["data"], row["extra"]) == ("https://a.org/1.png", picture(), None)


@SOURCES
def test_a_text_that_is_not_utf8_loses_only_its_row(tmp_path, source):
    texts = pa.array([json.dumps(LLAVA).encode(), b"caf\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"conversations": texts, "image": [picture()] * 2}), tmp_path / "d.parquet")
    assert read_all(source(path=str(tmp_path / "d.parquet")))["reason"].to_pylist() == [None, "bad_encoding"]


@SOURCES
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", json.dumps([{"messages": CHAT}], indent=1).encode()),
        ("a.jsonl", json.dumps([{"messages": CHAT}], indent=1).encode()),
        ("a.jsonl", json.dumps([{"messages": CHAT}]).encode()),
        ("a.jsonl.gz", gzip.compress(json.dumps({"messages": CHAT}).encode())),
        ("a.json", json.dumps([{"messages": CHAT}]).encode("utf-16")),
        ("a.json", b"parquet"),
    ],
)
def test_the_bytes_of_a_file_decide_its_format_before_its_name(tmp_path, source, name, data):
    if data == b"parquet":
        pq.write_table(pa.Table.from_pylist([{"messages": CHAT}]), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(data)
    (row,) = read_all(source(path=str(tmp_path))).to_pylist()
    assert row["reason"] == "more_placeholders_than_images"


@SOURCES
@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b"PK\3\4", "is a zip archive"),
        ("a.jsonl", b"\x89PNG\r\n", "is an image"),
        ("a.jsonl", b" <!DOCTYPE html>", "is HTML or XML"),
        ("a.jsonl", bytes(257) + b"ustar", "is a tar"),
        ("a.json", b"version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS"),
        ("a.parquet", b'{"messages": []}', "is not Parquet"),
        ("a.csv", b"image,caption", "is csv"),
        ("a.bin", b"?", "is of an unknown format"),
    ],
)
def test_a_file_of_another_format_is_reported_by_name_in_one_line(tmp_path, source, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecipeError, match=f"{message}.*This source reads json, jsonl, parquet"):
        source(path=str(tmp_path / name)).check()


def test_a_zip_of_lists_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.jsonl", "w") as archive:
        archive.writestr("a.jsonl", json.dumps({"messages": CHAT}))
    with pytest.raises(RecipeError, match="is a zip archive"):
        Messages(path=str(tmp_path)).check()
