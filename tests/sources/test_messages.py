import base64
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fixtures import fixture
from tests.real_data import real_data
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from tests.sources.test_llava_json import shown
from vlmdata.sources.messages import Messages
from vlmdata.step import RecipeError

ANSWER = {"role": "assistant", "content": "A square."}
SHOWN = [("user", 8), ("user", "What?"), ("assistant", "A square.")]
DATA = "data:image/png;base64," + base64.b64encode(picture()).decode()


def read(tmp_path, *entries: object) -> list[dict]:
    (tmp_path / "1.png").write_bytes(picture())
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(entry) for entry in entries))
    return read_all(Messages(path=str(tmp_path / "list.jsonl"))).to_pylist()


def user(*content: object) -> dict:
    return {"messages": [{"role": "user", "content": list(content)}, ANSWER]}


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "<image>What?"}, ANSWER], "images": ["1.png"]},
        {**user({"type": "image"}, {"type": "text", "text": "What?"}), "images": ["1.png"]},
        user({"type": "image", "image": "1.png"}, {"type": "text", "text": "What?"}),
        user({"type": "image", "path": "1.png"}, "What?"),
        user({"type": "image_url", "image_url": {"url": DATA}}, {"type": "text", "text": "What?"}),
        user({"type": "image", "base64": DATA}, "What?"),
        user({"type": "image", "base64": DATA.partition(",")[2]}, "What?"),
        user(
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA.partition(",")[2]}}, "What?"
        ),
    ],
)
def test_every_way_to_name_an_image_gives_the_same_row(tmp_path, record):
    (row,) = read(tmp_path, record)
    assert (row["drop"], shown(row)) == (None, SHOWN)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (user({"type": "image", "image": "1.png"}, "What is <image>?"), [SHOWN[0], ("user", "What is <image>?")]),
        ({**user({"type": "image"}, "What is <image>?"), "images": ["1.png"]}, [SHOWN[0], ("user", "What is <image>?")]),
        (user({"type": "text", "text": "What is <image>?"}), [("user", "What is <image>?")]),
        ({**user({"type": "text", "text": "<image>What?"}), "images": ["1.png"]}, SHOWN[:2]),
        ({**user({"type": "image"}, "<image>"), "images": ["1.png", "1.png"]}, [SHOWN[0], SHOWN[0]]),
    ],
)
def test_image_parts_of_a_record_decide_whether_a_placeholder_is_text(tmp_path, record, expected):
    (row,) = read(tmp_path, record)
    assert (row["drop"], shown(row)) == (None, [*expected, SHOWN[-1]])


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "<image>?"}],
        [{"role": "user", "content": "?", "images": ["1.png"]}, ANSWER, {"role": "user", "content": "<image>?"}],
        [{"role": "user", "content": "<image>?", "images": ["1.png"]}, ANSWER, {"role": "user", "content": "<image>?"}],
    ],
)
def test_a_placeholder_in_a_plain_text_never_becomes_text(tmp_path, messages):
    (row,) = read(tmp_path, {"messages": [*messages, ANSWER]})
    assert row["reason"] in ("more_placeholders_than_images", "images_both_in_parts_and_beside")


def test_parquet_with_images_as_bytes_is_read(tmp_path):
    record = {
        **user({"type": "image", "text": None}, {"type": "text", "text": "What?"}),
        "images": [{"bytes": picture(), "path": None}],
    }
    record["messages"][1] = {"role": "assistant", "content": [{"type": "text", "text": "A square."}]}
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "list.parquet")
    (row,) = read_all(Messages(path=str(tmp_path))).to_pylist()
    assert (shown(row), row["images"][0]["data"]) == (SHOWN, picture())


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (user({"type": "image"}), "more_placeholders_than_images"),
        ({**user("x"), "images": ["1.png", "1.png"]}, "more_images_than_placeholders"),
        (
            {**user({"type": "image", "image": "1.png"}, {"type": "image"}), "images": ["1.png"]},
            "images_both_in_parts_and_beside",
        ),
        (user({"type": "audio", "audio": "1.wav"}), "unknown_part"),
        (user({"type": "image_url", "image_url": {"url": "data:image/png;base64,?"}}), "bad_base64"),
        (user({"type": "image", "image": "lost.png"}), "no_file"),
        ({"messages": [ANSWER]}, "no_user_turn"),
        ({"messages": "hello"}, "no_turns"),
    ],
)
def test_an_unusable_record_of_messages_is_dropped_with_the_reason(tmp_path, record, reason):
    assert [row["reason"] for row in read(tmp_path, record)] == [reason]


def test_messages_about_one_image_are_joined_in_one_row(tmp_path):
    """An image (file, address or bytes) in several conversations is stored once. Other conversations do not change."""
    first = user({"type": "image", "image": DATA}, "What?")
    alone = user({"type": "image", "image": DATA})  # the question consists of the image only
    system = {"messages": [{"role": "system", "content": "Be kind."}, *first["messages"]]}
    two = user({"type": "image", "image": DATA}, {"type": "image", "image": DATA}, "Both?")
    lost = user({"type": "image", "image": "lost.png"}, "What?")
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, [first, system, two, lost, alone, lost])))
    rows = read_all(Messages(path=str(tmp_path / "list.jsonl"), joined=True)).to_pylist()
    assert shown(rows[0]) == [*SHOWN, ("user", ""), ("assistant", "A square.")]
    assert [row["reason"] for row in rows] == [None, None, None, "no_file", "no_file"]
    assert [len(row["roles"]) for row in rows] == [5, 4, 4, 3, 3]
    assert len(read_all(Messages(path=str(tmp_path / "list.jsonl"))).to_pylist()) == 6


def test_a_list_of_another_kind_is_refused(tmp_path):
    (tmp_path / "list.json").write_text('[{"conversation": []}]')
    with pytest.raises(RecipeError, match="no column 'messages'"):
        Messages(path=str(tmp_path)).check()


@pytest.mark.parametrize(("find", "name"), [(fixture, "messages_demo"), (real_data, "llamafactory_mllm_demo")])
def test_the_demo_of_llamafactory_and_a_similar_list_are_read(find, name):
    path = find(f"D_instruction/{name}/mllm_demo.json")
    rows = read_all(Messages(path=str(path))).to_pylist()
    records = json.loads(path.read_text())
    assert [row["drop"] for row in rows] == [None] * len(records)
    for row, record in zip(rows, records, strict=True):
        assert sum(image is not None for image in row["images"]) == len(record["images"])
        expected = "".join(m["content"] for m in record["messages"]).replace("<image>", "")
        assert "".join(text["text"] for text in row["texts"] if text) == expected
