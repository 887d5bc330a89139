"""A document is written to a tar in OBELICS's form."""

import json
from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from tests.rows import document, table
from vlmdata.engine.output.sample import samples
from vlmdata.row import drop_images, drop_texts, flatten

A, B = ({"url": f"http://ex.com/{n}.jpg", "blob": "b", "offset": 0, "size": 9, "format": "jpeg"} for n in "ab")


def packed(rows: pa.Table) -> dict:
    """Return the JSON member of the only row."""
    (sample,) = samples(rows, "documents", 0, 1)
    return json.loads(dict(sample.members)["json"])


def without(rows: pa.Table, lost: set[str]) -> pa.Table:
    """Drop the texts and the images whose text or address is in `lost`."""
    for column, name, drop in (("texts", "text", drop_texts), ("images", "url", drop_images)):
        values = flatten(rows, column).field(name).to_pylist()
        rows = drop(rows, np.array([value in lost for value in values], bool), "some_step")
    return rows


@pytest.mark.parametrize(
    ("parts", "lost", "texts"),
    [  # nodes are merged as in steps 10 and 13 of OBELICS's released code
        (["1", "2", A, "3"], set(), ["1\n\n2", A, "3"]),
        (["1", A, "2", B], {A["url"]}, ["1\n\n2", B]),
        (["1", A, "2", B, "3"], {"2"}, ["1", A, B, "3"]),
        (["1", A, "2", "3", B, "4"], {A["url"], "3"}, ["1\n\n2", B, "4"]),
        ([A, "1\n2", "3"], set(), [A, "1\n2\n\n3"]),
    ],
)
def test_adjacent_texts_without_an_image_between_them_are_merged(parts, lost, texts):
    made = packed(without(table([document(*parts)]), lost))
    assert made["texts"] == [None if one in (A, B) else one for one in texts]
    assert made["images"] == [one["url"] if one in (A, B) else None for one in texts]
    assert [bool(place) for place in made["metadata"]] == [one in (A, B) for one in texts]
    files = [place["file"] for place in made["metadata"] if place]
    assert files == [f"{number}.jpg" for number in range(len(files))]


def test_turns_and_texts_with_alternatives_are_not_merged():
    assert packed(table([{**document("1", "2"), "roles": ["user", "assistant"]}]))["texts"] == ["1", "2"]
    row = document("1", "2", "3", "4")
    row["texts"][1]["alternatives"] = ["two"]
    assert packed(table([row]))["texts"] == ["1", "2", "3\n\n4"]


TURNS = [
    ("user", "ask", None),
    ("assistant", "think", {"kind": "reasoning", "train": False, "name": "Ann"}),
    ("assistant", "say", None),
    ("assistant", "call", {"kind": "tool_call"}),
    ("tool", "one", {"begins": True, "tool_call_id": "c1"}),
    ("tool", "two", {"begins": True, "tool_call_id": "c2"}),
    ("assistant", "end", None),
]


@pytest.mark.parametrize(
    ("lost", "changed"),
    [
        (set(), {}),
        ({"think"}, {"say": {"train": False, "name": "Ann"}}),
        ({"think", "say"}, {"call": {"kind": "tool_call", "train": False, "name": "Ann"}}),
        ({"one"}, {}),
        ({"think", "say", "call"}, {}),
        ({"one", "two"}, {"end": {"begins": True}}),
    ],
)
def test_the_fields_of_a_message_stay_with_its_first_remaining_position(lost, changed):
    row = document(*(text for _, text, _ in TURNS))
    turns = [None if fields is None else json.dumps(fields) for _, _, fields in TURNS]
    made = packed(
        without(table([{**row, "roles": [role for role, *_ in TURNS], "turns": turns, "tools": '[{"name": "w"}]'}]), lost)
    )
    kept = [(role, text, changed.get(text, fields)) for role, text, fields in TURNS if text not in lost]
    assert list(zip(made["roles"], made["texts"], made["turns"], strict=True)) == kept
    assert made["tools"] == [{"name": "w"}]


def test_two_messages_are_not_merged_when_the_one_between_them_is_dropped():
    rows = table([{**document("a", "b", "c"), "roles": ["user", "assistant", "user"]}])
    made = packed(without(rows, {"b"}))
    assert (made["roles"], made["turns"]) == (["user", "user"], [None, {"begins": True}])
    assert "turns" not in packed(rows) and "tools" not in packed(rows)


@pytest.mark.parametrize(
    ("lost", "roles", "turns"),
    [
        ({"q1", "a1"}, ["user", "user", "assistant"], [{"train": False}, None, None]),
        ({"q1"}, ["user", "assistant", "user", "assistant"], [None, None, {"train": False}, None]),
        ({"a1"}, ["user", "user", "user", "assistant"], [None, None, {"train": False, "begins": True}, None]),
    ],
)
def test_images_of_a_message_without_its_texts_join_the_next_message_of_the_role(lost, roles, turns):
    """So a conversation whose first turn was rejected begins with its image and the next question, as one message."""
    own = [None, None, None, '{"train": false}', None]
    row = {**document(A, "q1", "a1", "q2", "a2"), "roles": ["user", "user", "assistant", "user", "assistant"], "turns": own}
    made = packed(without(table([row]), lost))
    assert (made["roles"], made["turns"]) == (roles, turns)


def test_a_message_that_was_only_an_image_stays_a_message():
    own = [None, '{"begins": true}', None]
    row = {**document(A, "q", "a"), "roles": ["user", "user", "assistant"], "turns": own}
    assert packed(table([row]))["turns"] == [None, {"begins": True}, None]


def test_a_tool_schema_keeps_its_key_order_and_other_keys_are_sorted():
    tools = '[{"type":"function","function":{"name":"w","description":"d"}}]'
    (sample,) = samples(
        table([{**document("a"), "roles": ["user"], "tools": tools, "extra": '{"z": {"b": 1, "a": 2}}'}]), "documents", 0, 1
    )
    text = dict(sample.members)["json"].decode()
    assert f'"tools":{tools}' in text and text.endswith('"z":{"a":2,"b":1}}')
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_a_merged_text_loses_its_scores_and_other_texts_keep_theirs():
    rows = table([document("1", "2", A, "3")])
    rows = rows.append_column("quality.words", pa.array([[1.0, 2.0, None, 3.0]], pa.list_(pa.float32())))
    assert packed(rows)["scores"] == {"quality.words": [None, None, 3.0]}


def test_measured_values_of_any_type_become_json():
    rows = table([document("a text", A)])
    columns = {
        "hash": pa.array([2**64 - 1], pa.uint64()),
        "nan": pa.array([[float("nan"), float("inf")]]),
        "decimal": pa.array([Decimal("1.50")]),
        "day": pa.array([date(2024, 2, 29)]),
        "bytes": pa.array([b"\xff\x00"]),
        "truth": pa.array([True]),
    }
    for name, values in columns.items():
        rows = rows.append_column(name, values)
    expected = {"hash": 2**64 - 1, "nan": [None, None], "decimal": 1.5, "day": "2024-02-29", "bytes": "ff00", "truth": True}
    assert packed(rows)["scores"] == expected
