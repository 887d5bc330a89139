"""A conversation's reasoning, tool calls, tool results and loss flags are all positions of its row."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loader.tars import write_tar
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.engine.output.sample import samples
from vlmdata.readers.plain_rows import tables
from vlmdata.row import conform
from vlmdata.sources.llava_json import LlavaJson
from vlmdata.sources.messages import Messages
from vlmdata.sources.webdataset import Webdataset

QUESTION = {"role": "user", "content": "Weather?"}
ANSWER = {"role": "assistant", "content": "Sunny."}
CALL = '{"name": "w", "arguments": {"city": "Bern"}}'
CALL_1 = '{"name": "w", "arguments": {"city": "Bern"}, "id": "c1"}'
RESULT = {"role": "tool", "tool_call_id": "c1", "name": "w", "content": "sun"}
SCHEMA = {"type": "function", "function": {"name": "w", "parameters": {"type": "object", "properties": {}}}}
SOURCES = pytest.mark.parametrize("source", [LlavaJson, Messages])


def read(tmp_path, source, *records: dict) -> list[dict]:
    (tmp_path / "1.png").write_bytes(picture())
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, records)))
    return read_all(source(path=str(tmp_path / "list.jsonl"))).to_pylist()


def positions_of(row: dict) -> list[tuple]:
    """Return (role, text or image width, entry of `turns`) of each position."""
    turns = row["turns"] or [None] * len(row["roles"])
    shown = [image["width"] if image else text["text"] for image, text in zip(row["images"], row["texts"], strict=True)]
    return [(*one, json.loads(turn) if turn else None) for *one, turn in zip(row["roles"], shown, turns, strict=True)]


def called(**function: object) -> dict:
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]}


@SOURCES
def test_a_conversation_with_tools_is_read_without_loss(tmp_path, source):
    calls = called(name="w", arguments='{"city": "Bern"}')
    record = {
        "messages": [
            {"role": "developer", "content": "Be kind."},
            QUESTION,
            {**calls, "reasoning_content": " I look.\n", "content": "A moment."},
            RESULT,
            {"role": "tool", "content": "rain"},
            {**ANSWER, "weight": 0},
            ANSWER,
        ],
        "tools": [SCHEMA],
        "id": 7,
    }
    (row,) = read(tmp_path, source, record)
    assert positions_of(row) == [
        ("system", "Be kind.", None),
        ("user", "Weather?", None),
        ("assistant", " I look.\n", {"kind": "reasoning"}),
        ("assistant", "A moment.", None),
        ("assistant", CALL_1, {"kind": "tool_call"}),
        ("tool", "sun", {"begins": True, "name": "w", "tool_call_id": "c1"}),
        ("tool", "rain", {"begins": True}),
        ("assistant", "Sunny.", {"train": False}),
        ("assistant", "Sunny.", {"begins": True}),
    ]
    assert (row["drop"], row["tools"], row["extra"]) == (None, json.dumps([SCHEMA]), '{"id": 7}')


@SOURCES
@pytest.mark.parametrize("gave", ["observation", "tool", "Tool-Response", "function", "ipython", "tool_result"])
@pytest.mark.parametrize("caller", ["function_call", "tool_call"])
@pytest.mark.parametrize("call", [CALL, f"[{CALL}]", json.loads(CALL), '{"name": "w", "parameters": {"city": "Bern"}}'])
def test_tool_calls_that_are_turns_of_sharegpt_are_read(tmp_path, source, gave, caller, call):
    turns = [("human", "Weather?"), (caller, call), (gave, "sun"), ("gpt", "Sunny.")]
    record = {"conversations": [{"from": name, "value": value} for name, value in turns], "system": "S"}
    (row,) = read(tmp_path, source, {**record, "tools": json.dumps([SCHEMA["function"]])})
    assert positions_of(row) == [
        ("system", "S", None),
        ("user", "Weather?", None),
        ("assistant", CALL, {"kind": "tool_call"}),
        ("tool", "sun", {"begins": True}),
        ("assistant", "Sunny.", None),
    ]
    assert (row["tools"], row["extra"]) == (json.dumps([SCHEMA["function"]]), None)


@pytest.mark.parametrize(
    ("message", "calls"),
    [
        (called(name="w", arguments={"city": "Bern"}), [CALL_1]),
        (called(name="w", arguments="{}"), ['{"name": "w", "arguments": {}, "id": "c1"}']),
        (called(name="w", arguments=""), ['{"name": "w", "arguments": {}, "id": "c1"}']),
        (called(name="w"), ['{"name": "w", "arguments": {}, "id": "c1"}']),
        (
            called(name="w", arguments='{"a": null, "b": "ü"}'),
            ['{"name": "w", "arguments": {"a": null, "b": "ü"}, "id": "c1"}'],
        ),
        ({"role": "assistant", "tool_calls": json.dumps([json.loads(CALL)])}, [CALL]),
        ({"role": "assistant", "tool_calls": [json.loads(CALL)] * 2}, [CALL, CALL]),
        ({"role": "assistant", "content": "", "function_call": {"name": "w", "arguments": '{"city": "Bern"}'}}, [CALL]),
    ],
)
def test_every_form_of_a_tool_call_is_read_as_the_same_form(tmp_path, message, calls):
    (row,) = read(tmp_path, Messages, {"messages": [QUESTION, message]})
    assert positions_of(row)[1:] == [("assistant", call, {"kind": "tool_call"}) for call in calls]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ([called(name="w", arguments='{"city": ')], "bad_tool_call"),
        ([called(name="w", arguments="[1]")], "bad_tool_call"),
        ([called(name="w", arguments='{"a": NaN}')], "bad_tool_call"),
        ([called(arguments="{}")], "bad_tool_call"),
        ([called(name=" ", arguments="{}")], "bad_tool_call"),
        ([{**called(name="w"), "role": "user"}, ANSWER], "bad_tool_call"),
        ([{"role": "assistant", "tool_calls": ["w"]}], "bad_tool_call"),
        ([{"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "w"}}]}], "bad_tool_call"),
        ([{"role": "function_call", "content": "w(city)"}], "bad_tool_call"),
        ([{"role": "function_call", "content": None}], "bad_tool_call"),
        ([called(name="w", arguments='{"a": "\\ud800"}')], "bad_encoding"),
        ([{**ANSWER, "weight": "0"}], "bad_weight"),
        ([{**ANSWER, "weight": 1, "train": False}], "bad_weight"),
        ([{**ANSWER, "train_detail": [{"begin_offset": 0, "train": False}]}], "bad_weight"),
        ([{**ANSWER, "reasoning": "a", "thinking": "b"}], "bad_reasoning"),
        ([{**ANSWER, "reasoning": 7}], "bad_reasoning"),
        ([{**QUESTION, "reasoning": "a"}, ANSWER], "bad_reasoning"),
        ([{**ANSWER, "name": 7}], "bad_name"),
        ([{"role": "assistant", "content": None}], "no_text"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], "no_text"),
        ([{"role": "assistant", "content": " \n"}, {"role": "assistant", "content": ""}], "empty_answer"),
        ([{"role": "assistant", "content": [{"type": "video", "video": "1.mp4"}]}], "unknown_part"),
        ([{"role": "judge", "content": "x"}, ANSWER], "unknown_role"),
    ],
)
def test_a_conversation_that_cannot_be_read_is_dropped_with_the_reason(tmp_path, more, reason):
    assert [row["reason"] for row in read(tmp_path, Messages, {"messages": [QUESTION, *more]})] == [reason]


@pytest.mark.parametrize("tools", ["[broken", ["w"], [{"description": "no name"}], 7, [7]])
@pytest.mark.parametrize("name", ["tools", "functions"])
def test_invalid_tools_are_dropped_with_the_reason(tmp_path, name, tools):
    assert [row["reason"] for row in read(tmp_path, Messages, {"messages": [QUESTION, ANSWER], name: tools})] == ["bad_tools"]


@pytest.mark.parametrize("none", [None, [], "", "[]", " "])
def test_an_empty_list_of_tools_is_read_as_null(tmp_path, none):
    (row,) = read(tmp_path, Messages, {"messages": [QUESTION, ANSWER], "tools": none})
    assert (row["reason"], row["tools"], row["turns"]) == (None, None, None)


@pytest.mark.parametrize("tools", [SCHEMA, [SCHEMA], json.dumps(SCHEMA), json.dumps([SCHEMA]), [json.dumps(SCHEMA)]])
@pytest.mark.parametrize("name", ["tools", "functions"])
def test_tools_in_every_form_are_read_as_a_list_of_schemas(tmp_path, name, tools):
    (row,) = read(tmp_path, Messages, {"messages": [QUESTION, ANSWER], name: tools})
    assert (json.loads(row["tools"]), row["extra"]) == ([SCHEMA], None)


@pytest.mark.parametrize(
    ("own", "turn"),
    [
        ({"weight": 0}, {"train": False}),
        ({"weight": 0.0}, {"train": False}),
        ({"weight": 0.3}, None),
        ({"weight": 1, "name": "Ann"}, {"name": "Ann"}),
        ({"train": False}, {"train": False}),
        ({"trainable": False}, {"train": False}),
        ({"loss": False}, {"train": False}),
        ({"training": True}, None),
        ({"weight": None, "name": "", "tool_call_id": None, "reasoning": "", "tool_calls": []}, None),
    ],
)
def test_loss_flags_and_names_of_a_message_are_read(tmp_path, own, turn):
    (row,) = read(tmp_path, Messages, {"messages": [QUESTION, {**ANSWER, **own}]})
    assert positions_of(row)[1] == ("assistant", "Sunny.", turn)


@pytest.mark.parametrize(
    "thought",
    [
        {"reasoning": "I look."},
        {"reasoning_content": "I look.", "thinking": "I look."},
        {"reasoning": [{"type": "text", "text": "I look."}]},
        {"content": [{"type": "thinking", "thinking": "I look."}, {"type": "text", "text": "Sunny."}]},
        {"content": [{"type": "reasoning", "text": "I look."}, "Sunny."], "reasoning": None, "thinking": True},
    ],
)
def test_reasoning_comes_before_the_answer(tmp_path, thought):
    (row,) = read(tmp_path, Messages, {"messages": [QUESTION, {**ANSWER, **thought}]})
    assert positions_of(row)[1:] == [("assistant", "I look.", {"kind": "reasoning"}), ("assistant", "Sunny.", None)]


def test_a_system_prompt_among_the_turns_is_preferred_to_one_beside_them(tmp_path):
    turns = [{"role": "system", "content": "Mine."}, QUESTION, ANSWER]
    own, blank = read(tmp_path, Messages, {"messages": turns, "system": "S"}, {"messages": turns[1:], "system": " "})
    assert positions_of(own)[0][1] == "Mine." and json.loads(own["extra"]) == {"system": "S"}
    assert [role for role, *_ in positions_of(blank)] == ["user", "assistant"]


def test_a_tool_may_return_an_object_and_images(tmp_path):
    gave = [{"type": "image", "image": "1.png"}, {"type": "text", "text": "a map"}]
    turns = [QUESTION, called(name="w"), {**RESULT, "content": {"t": 3}}, {"role": "tool", "content": gave}, ANSWER]
    (row,) = read(tmp_path, Messages, {"messages": turns})
    assert positions_of(row)[2:5] == [
        ("tool", '{"t": 3}', {"begins": True, "name": "w", "tool_call_id": "c1"}),
        ("tool", 8, {"begins": True}),
        ("tool", "a map", None),
    ]


@pytest.mark.parametrize(
    ("turn", "shown"),
    [
        ({"content": "Which?", "images": ["1.png", "1.png"]}, [8, 8, "Which?"]),
        ({"content": "This: <image>\n?", "image": "1.png"}, ["This:", 8, "?"]),
        ({"content": "None?", "images": [], "image": None, "videos": None}, ["None?"]),
    ],
)
def test_a_turn_may_name_its_images(tmp_path, turn, shown):
    (row,) = read(tmp_path, Messages, {"messages": [{"role": "user", **turn}, ANSWER]})
    assert [one for role, one, _ in positions_of(row) if role == "user"] == shown


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{**QUESTION, "videos": ["1.mp4"]}, ANSWER]},
        {"messages": [{**QUESTION, "content": "<video>What?"}, ANSWER], "videos": ["1.mp4"]},
        {"messages": [{**QUESTION, "content": "<audio>What?"}, ANSWER], "audio": "1.wav"},
    ],
)
def test_videos_and_sounds_are_dropped_with_the_reason(tmp_path, record):
    assert [row["reason"] for row in read(tmp_path, Messages, record)] == ["unknown_part"]


def test_the_name_of_the_video_of_a_picture_is_carried_as_a_column(tmp_path):
    (row,) = read(tmp_path, Messages, {"messages": [QUESTION, ANSWER], "video": "1.mp4"})
    assert (row["drop"], row["extra"]) == (None, '{"video": "1.mp4"}')


@SOURCES
def test_questions_that_become_adjacent_in_joined_conversations_stay_two(tmp_path, source):
    first = {"messages": [{**QUESTION, "content": "<image>One?"}, ANSWER, {**QUESTION, "content": "Two?"}], "image": "1.png"}
    second = {"messages": [{**QUESTION, "content": "<image>Three?"}, ANSWER], "image": "1.png"}
    tools = {**second, "tools": [SCHEMA]}
    (tmp_path / "1.png").write_bytes(picture())
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, [first, second, tools, second])))
    one, two = read_all(source(path=str(tmp_path / "l.jsonl"), joined=True)).to_pylist()
    assert positions_of(one)[3:] == [
        ("user", "Two?", None),
        ("user", "Three?", {"begins": True}),
        ("assistant", "Sunny.", None),
        ("user", "Three?", None),
        ("assistant", "Sunny.", None),
    ]
    assert (two["tools"], len(two["roles"])) == (json.dumps([SCHEMA]), 3)


@SOURCES
def test_nulls_in_a_parquet_struct_for_fields_of_other_rows_are_ignored(tmp_path, source):
    other = {"name": "v", "arguments": {"place": "Rome"}}
    calls = [[json.loads(CALL)], [other]]
    records = [{"messages": [QUESTION, {"role": "assistant", "content": None, "tool_calls": call}, ANSWER]} for call in calls]
    for record, name in zip(records, "ab", strict=True):
        record["tools"] = [{"name": "w", "parameters": {name: 1}}]
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "d.parquet")
    one, two = read_all(source(path=str(tmp_path / "d.parquet"))).to_pylist()
    assert [positions_of(row)[1][1] for row in (one, two)] == [CALL, json.dumps(other)]
    assert json.loads(two["tools"]) == [{"name": "w", "parameters": {"b": 1}}]


@pytest.mark.parametrize("text", ["  indented\n\tcode\r\n", "ends \n", "\u00a0wide\u00a0", "a  b", " \n "])
@pytest.mark.parametrize("image", [{}, {"image": "1.png"}])
def test_white_space_of_questions_and_answers_is_kept(tmp_path, text, image):
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": text}, {"from": "gpt", "value": "x"}]
    (row,) = read(tmp_path, LlavaJson, {"conversations": turns, **image})
    shown = [one for _, one, _ in positions_of(row)]
    is_between = image and not text.strip()  # only white space between the image and the end of its message
    assert shown == [*([8] if image else []), *([] if is_between else [text]), text, "x"]


def test_only_white_space_beside_a_placeholder_is_removed_with_it(tmp_path):
    turns = [{"from": "human", "value": "  See \n<image>\n this:\n<image>  "}, {"from": "gpt", "value": "It. \n"}]
    (row,) = read(tmp_path, LlavaJson, {"conversations": turns, "image": ["1.png", "1.png"]})
    assert [one for _, one, _ in positions_of(row)] == ["  See", 8, "this:", 8, "It. \n"]


def test_a_written_conversation_is_read_back_without_loss(tmp_path):
    turns = [
        QUESTION,
        {**called(name="w", arguments={"city": "Bern"}), "reasoning": "I look."},
        RESULT,
        {**ANSWER, "train": False},
    ]
    record = {"messages": [*turns, {"role": "user", "content": "<image>And?"}, ANSWER], "image": "1.png", "tools": [SCHEMA]}
    (row,) = read(tmp_path, Messages, record)
    rows = []
    for number in range(2):
        table = conform(next(tables([{**row, "key": "0" * 24}])))
        (sample,) = samples(table, "documents", 0, 1)
        held = [(name, data if isinstance(data, bytes) else picture()) for name, data in sample.members]
        write_tar(tmp_path / f"{number}.tar", [(f"{sample.key}.{name}", data) for name, data in held])
        (row,) = read_all(Webdataset(path=str(tmp_path / f"{number}.tar"))).to_pylist()
        rows.append(row)
        assert (positions_of(row), json.loads(row["tools"])) == (positions_of(rows[0]), [SCHEMA])
    (first,) = read(tmp_path, Messages, record)
    assert positions_of(rows[0]) == positions_of(first)


def test_keys_depend_on_the_record_and_not_on_how_it_is_split_into_texts(tmp_path):
    (tmp_path / "list.jsonl").write_text(json.dumps({"messages": [QUESTION, ANSWER]}))
    (source,) = [Messages(path=str(tmp_path / "list.jsonl"))]
    (table,) = [table for piece in source.pieces() for table in source.read(piece)]
    assert table["id"].to_pylist() == [json.dumps({"messages": [QUESTION, ANSWER]})]
