"""Conversations exported as messages have the shapes that trainers read, and are read back unchanged."""

import json
import warnings
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel, ConfigDict

from tests.exporting.made import IMAGE, caption, chat, make_dataset
from tests.exporting.read_back import both
from tests.exports.talks import CALL, MIXED, PLAIN, TOOLS, TURNS, A, B, S, T, U, X
from tests.sources.reading import read_all
from vlmdata.export_dataset import export
from vlmdata.sources.messages import Messages
from vlmdata.step import RecipeError

EVERY = [*PLAIN, *TURNS]


class Turn(BaseModel):
    """A turn as LLaMA-Factory and ms-swift read it: the content is a text."""

    model_config = ConfigDict(extra="forbid")
    role: str
    content: str
    name: str = ""
    tool_call_id: str = ""
    reasoning_content: str = ""
    loss: bool = True


class Record(BaseModel):
    """A line of messages.jsonl with placeholders. `tools` is JSON text."""

    messages: list[Turn]
    images: list[str] = []
    tools: str = "[]"


def exported(tmp_path: Path, samples: list, form: str, **options) -> Path:
    make_dataset(tmp_path / "out", samples, layout="documents", per_shard=3)
    with warnings.catch_warnings(action="ignore"):
        export(tmp_path / "out", tmp_path / form, to="messages", options={"form": form, **options})
    return tmp_path / form


LITERAL = [  # conversations with `<image>` in a text
    chat(30, A, "What does <image> mean?", "<image> is a tag.", roles=[U, U, S]),
    chat(31, "What does <image> mean?", "A tag.", roles=[U, S]),
    chat(32, "Write <image>.", "<image>", A, "?", "Yes.", roles=[T, U, U, U, S]),
    chat(
        33,
        "Hi",
        CALL,
        "<image>\n<image>",
        "So.",
        roles=[U, S, X, S],
        turns=[None, {"kind": "tool_call"}, {"begins": True}, None],
    ),
    chat(34, A, "Why?", "<image>", "So.", roles=[U, U, S, S], turns=[None, None, {"kind": "reasoning"}, None]),
    chat(35, "<image>", A, B, "<image> <image>", "<image>", roles=[U, U, U, U, S]),
]


@pytest.mark.parametrize("form", ["parts", "parquet"])
def test_a_placeholder_that_is_text_is_read_back_as_text(tmp_path, form):
    target = exported(tmp_path, LITERAL, form)
    assert not (target / "left_out.log").exists()
    expected, found = both(LITERAL, Messages(path=str(target / ("data" if form == "parquet" else "messages.jsonl"))))
    assert found == expected


@pytest.mark.parametrize("form", ["parts", "placeholders", "parquet"])
def test_conversations_are_read_back_unchanged(tmp_path, form):
    target = exported(tmp_path, EVERY, form)
    assert not (target / "left_out.log").exists()
    expected, found = both(EVERY, Messages(path=str(target / ("data" if form == "parquet" else "messages.jsonl"))))
    if form == "placeholders":  # LLaMA-Factory and ms-swift read reasoning in the text only
        thought = ("assistant", "<think>\nbecause\n</think>\n\nSo.", None)
        expected = [[*one[:-2], thought] if is_thinking(one) else one for one in expected]
    assert sorted(found, key=repr) == sorted(expected, key=repr)


def is_thinking(positions: list) -> bool:
    return any(turn and turn.get("kind") == "reasoning" for _, _, turn in positions)


def test_lines_with_placeholders_have_the_shape_that_trainers_read(tmp_path):
    target = exported(tmp_path, EVERY, "placeholders")
    records = [json.loads(line) for line in (target / "messages.jsonl").read_text().splitlines()]
    for record in map(Record.model_validate, records):
        assert sum(turn.content.count("<image>") for turn in record.messages) == len(record.images)
        assert all((target / path).is_file() for path in record.images)
    assert [turn["content"] for turn in records[0]["messages"]] == ["<image>What is it?", "A picture."]
    assert records[4]["origin"] == {"a": [1, None]} and records[4]["id"] == 7
    assert json.loads(records[5]["tools"]) == TOOLS and records[5]["messages"][1]["role"] == "function_call"
    assert [turn["role"] for turn in records[5]["messages"]] == ["user", "function_call", "observation", "assistant"]


def test_dataset_info_names_only_the_columns_that_some_line_has(tmp_path):
    info = json.loads((exported(tmp_path, PLAIN, "placeholders") / "dataset_info.json").read_text())
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    tags |= {"observation_tag": "observation", "function_tag": "function_call", "system_tag": "system"}
    columns = {"messages": "messages", "images": "images"}
    assert info == {"vlmdata": {"file_name": "messages.jsonl", "formatting": "sharegpt", "columns": columns, "tags": tags}}


def test_conversations_that_placeholders_cannot_hold_are_left_out(tmp_path):
    target = exported(tmp_path, [*PLAIN, *MIXED], "placeholders")
    listed = dict(line.split("\t") for line in (target / "left_out.log").read_text().splitlines())
    assert list(listed) == [key for key, _ in MIXED]
    assert list(listed.values()) == [
        "a reader of this format would read other texts, such as `<image>` in a text as an image",
        "a reader of this format would refuse it: more_placeholders_than_images",
        "a message has reasoning or a tool call beside a text, which this format cannot hold",
        "a reader of this format would refuse it: no_assistant_turn",
    ]
    expected, found = both(PLAIN, Messages(path=str(target / "messages.jsonl")))
    assert found == expected


ORDERS = {
    "'user' after 'user'": chat(30, A, "one", "two", "x", roles=[U, U, U, S], turns=[None, None, {"begins": True}, None]),
    "'assistant' as first message": chat(31, "Hi.", "What?", "That.", roles=[S, U, S]),
    "the last message is not an answer": chat(32, "What?", "That.", "Thanks.", roles=[U, S, U]),
    "'system' after 'assistant'": chat(33, "What?", "That.", "Now French.", "Quoi?", "Oui.", roles=[U, S, T, U, S]),
    "it takes <video> in a text as a medium": chat(34, "What is <video>?", "A tag.", roles=[U, S]),
    "an image is in the system message": chat(35, A, "Look.", "What?", "That.", roles=[T, T, U, S]),
}


def test_conversations_that_llama_factory_skips_or_refuses_are_left_out(tmp_path):
    target = exported(tmp_path, [*PLAIN[:1], *ORDERS.values()], "placeholders")
    listed = dict(line.split("\t") for line in (target / "left_out.log").read_text().splitlines())
    assert list(listed) == [key for key, _ in ORDERS.values()]
    for reason, (key, _) in ORDERS.items():
        assert reason in listed[key] and listed[key].endswith("The form 'parts' holds it")
    (tmp_path / "parts").mkdir()
    parts = exported(tmp_path / "parts", list(ORDERS.values()), "parts")
    assert not (parts / "left_out.log").exists()


def test_columns_of_parquet_are_those_that_some_conversation_needs(tmp_path):
    (tmp_path / "plain").mkdir()
    plain = pq.read_schema(exported(tmp_path / "plain", PLAIN, "parquet") / "data" / "train-00000-of-00002.parquet")
    assert plain.names == ["messages", "images", "json"]
    assert [field.name for field in plain.field("messages").type.value_type] == ["role", "content"]
    files = sorted((exported(tmp_path, EVERY, "parquet") / "data").iterdir())
    schemas = [pq.read_schema(path) for path in files]
    assert len(files) == 3 and all(schema.equals(schemas[0]) for schema in schemas)
    fields = [field.name for field in schemas[0].field("messages").type.value_type]
    assert fields == ["role", "content", "reasoning_content", "tool_calls", "name", "weight"] and "tools" in schemas[0].names


def test_datasets_opens_the_parquet_with_images(tmp_path):
    target = exported(tmp_path, EVERY, "parquet")
    loaded = datasets.load_dataset(str(target), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features["images"] == datasets.List(datasets.Image())
    assert [image.size for image in loaded[1]["images"]] == [(8, 6), (9, 7)]
    assert loaded[1]["messages"][1]["content"][0] == {"type": "text", "text": "Which\n\nis bigger?"}


def test_trl_takes_the_parquet_as_conversational(tmp_path):
    data_utils = pytest.importorskip("trl.data_utils", reason="trl is not installed")
    loaded = datasets.load_dataset(str(exported(tmp_path, PLAIN, "parquet")), split="train", cache_dir=str(tmp_path / "cache"))
    for row in loaded:
        assert data_utils.is_conversational(row)
        shown = [part["type"] for message in row["messages"] for part in message["content"]].count("image")
        assert shown == len(row["images"])
        prepared = data_utils.prepare_multimodal_messages(row["messages"], images=row["images"])
        parts = [part for message in prepared for part in message["content"] if part["type"] == "image"]
        assert [part["image"].size for part in parts] == [image.size for image in row["images"]]


def test_captions_become_conversations_if_the_user_gives_the_question(tmp_path):
    samples = [caption(n) for n in range(2)] + [(caption(2)[0], {**caption(2)[1], "txt": b" "})]
    make_dataset(tmp_path / "out", samples, layout="captions")
    with pytest.raises(RecipeError, match=r"holds captions, .* set a question: --set prompt='Describe the image\.'"):
        export(tmp_path / "out", tmp_path / "to", to="messages")
    with pytest.warns(UserWarning, match="1 sample is left out"):
        assert export(tmp_path / "out", tmp_path / "to", to="messages", options={"prompt": "What?"}) == 2
    expected = [chat(n, samples[n][1]["png"], "What?", f"picture {n}") for n in range(2)]
    want, found = both(expected, Messages(path=str(tmp_path / "to" / "messages.jsonl")))
    assert found == want
    assert (tmp_path / "to" / "left_out.log").read_text() == f"{samples[2][0]}\tit has no caption\n"


@pytest.mark.parametrize("form", ["parts", "placeholders"])
def test_columns_of_captions_do_not_become_messages_tools_or_videos(tmp_path, form):
    key, members = caption(0)
    own = {"system": "Say no.", "functions": [{"name": "f"}], "video": "v.mp4", "image": "a.png", "messages": "m"}
    facts = json.dumps({**json.loads(members["json"]), **own}).encode()
    text = "a <video> of it" if form == "parts" else "a picture"  # LLaMA-Factory refuses `<video>` in a text
    make_dataset(tmp_path / "out", [(key, {**members, "json": facts, "txt": text.encode()})], layout="captions")
    assert export(tmp_path / "out", tmp_path / "to", to="messages", options={"prompt": "What?", "form": form}) == 1
    want, found = both([chat(0, IMAGE, "What?", text)], Messages(path=str(tmp_path / "to" / "messages.jsonl")))
    assert found == want
    record = json.loads((tmp_path / "to" / "messages.jsonl").read_text())
    assert {f"column_{name}": value for name, value in own.items()}.items() <= record.items()


def test_columns_of_conversations_in_parquet_are_read_back(tmp_path):
    samples = [chat(0, licence="CC BY", scores={"length": 3}), chat(1, licence=None, ids=[1, None], json="{}")]
    rows = read_all(Messages(path=str(exported(tmp_path, samples, "parquet") / "data"))).to_pylist()
    assert [json.loads(row["extra"]) for row in rows] == [
        {"licence": "CC BY", "source_key": samples[0][0], "earlier_scores": {"length": 3}},
        {"licence": None, "ids": [1, None], "json": "{}", "source_key": samples[1][0]},
    ]


@pytest.mark.parametrize("said", ["{", "[1]", '{"key": "other"}', '{"licence": "CC BY"}'])
def test_a_column_named_json_that_vlmdata_did_not_write_stays_a_column(tmp_path, said):
    path = exported(tmp_path, [chat(0)], "parquet") / "data" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index("json"), "json", [[said]]), path)
    (row,) = read_all(Messages(path=str(path))).to_pylist()
    assert json.loads(row["extra"]) == {"json": said}


def test_image_files_hold_the_bytes_of_the_dataset(tmp_path):
    target = exported(tmp_path, EVERY, "parts")
    stored = {path.read_bytes() for path in target.glob("images/*/*.png")}
    assert stored == {A, B}
