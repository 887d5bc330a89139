"""Conversations exported in LLaVA's form have its fields, and the source llava_json reads them back unchanged."""

import json

import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.exporting.made import caption, chat, make_dataset
from tests.exporting.read_back import both
from tests.exports.talks import MIXED, PLAIN, TURNS, A, S, T, U
from vlmdata.export_dataset import export
from vlmdata.sources.llava_json import LlavaJson


class Turn(BaseModel):
    model_config = ConfigDict(extra="allow")
    speaker: str = Field(alias="from", pattern="^(human|gpt|system|observation|function_call)$")
    value: str


class Record(BaseModel):
    id: str | int
    image: str | list[str] = []
    conversations: list[Turn]


def exported(tmp_path, samples, **options):
    make_dataset(tmp_path / "out", samples, layout="documents", per_shard=2)
    export(tmp_path / "out", tmp_path / "to", to="llava", options=options)
    return tmp_path / "to"


def test_conversations_are_read_back_unchanged(tmp_path):
    target = exported(tmp_path, [*PLAIN, *TURNS])
    expected, found = both([*PLAIN, *TURNS], LlavaJson(path=str(target / "llava.json")))
    assert found == expected


def test_records_have_the_fields_and_placeholders_of_llava(tmp_path):
    target = exported(tmp_path, PLAIN)
    records = json.loads((target / "llava.json").read_text())
    for record in map(Record.model_validate, records):
        images = [record.image] if isinstance(record.image, str) else record.image
        assert sum(turn.value.count("<image>") for turn in record.conversations) == len(images)
        assert all((target / path).is_file() for path in images)
    first = {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A picture."}
    assert records[0]["conversations"] == [*first] and records[0]["id"] == PLAIN[0][0]
    assert isinstance(records[0]["image"], str) and len(records[1]["image"]) == 2 and "image" not in records[2]
    assert records[4]["id"] == 7


def test_a_list_with_shards_that_are_empty_is_json(tmp_path):
    samples = [*MIXED[:2], *PLAIN[:2], *MIXED[2:], PLAIN[2], MIXED[0]]
    with pytest.warns(UserWarning, match="5 samples are left out"):
        target = exported(tmp_path, samples)
    assert len(json.loads((target / "llava.json").read_text())) == 3


def test_captions_become_conversations_if_the_user_gives_the_question(tmp_path):
    make_dataset(tmp_path / "out", map(caption, range(3)), layout="captions")
    assert export(tmp_path / "out", tmp_path / "to", to="llava", options={"prompt": "Describe the image."}) == 3
    records = json.loads((tmp_path / "to" / "llava.json").read_text())
    assert records[1]["conversations"][0] == {"from": "human", "value": "<image>\nDescribe the image."}
    assert records[1]["conversations"][1] == {"from": "gpt", "value": "picture 1"}


REFUSED = [  # what LLaVA's trainer stops at, or reads only in part
    (PLAIN[1], "it has 2 images"),
    (chat(30, "Be kind.", "What?", "A picture.", roles=[T, U, S]), "it has no speaker 'system'"),
    (TURNS[0], "it has no speaker 'function_call'"),
    (chat(31, "Hello.", A, "What?", "A picture.", roles=[S, U, U, S]), "only questions with an answer each"),
    (chat(32, A, "What?", "A picture.", "Thanks.", roles=[U, U, S, U]), "only questions with an answer each"),
    (chat(33, A, "What does </s> mean?", "An end.", roles=[U, U, S]), "one of its marks"),
    (chat(34, "What?", "ASSISTANT: a picture", roles=[U, S]), "one of its marks"),
]


def test_the_form_of_the_trainer_leaves_out_what_it_would_stop_at(tmp_path):
    kept = [PLAIN[0], PLAIN[2], PLAIN[4], TURNS[2]]
    with pytest.warns(UserWarning, match=f"{len(REFUSED)} samples are left out"):
        target = exported(tmp_path, [*kept, *(sample for sample, _ in REFUSED)], form="trainer")
    left_out = dict(line.split("\t") for line in (target / "left_out.log").read_text().splitlines())
    for (key, _), reason in REFUSED:
        assert reason in left_out.pop(key)
    assert not left_out
    records = json.loads((target / "llava.json").read_text())
    assert [len(record["conversations"]) for record in records] == [2, 4, 2, 4]
    assert all(isinstance(record.get("image", ""), str) for record in records)


def test_the_form_of_the_trainer_leaves_out_avif_and_names_it(tmp_path):
    key, members = chat(1, A, "What is it?", "A picture.")
    facts = json.loads(members["json"])
    facts["metadata"][0]["file"] = "0.avif"
    avif = key, {"0.avif": b"", "json": json.dumps(facts).encode()}
    with pytest.warns(UserWarning, match="1 sample is left out"):
        target = exported(tmp_path, [PLAIN[0], avif], form="trainer")
    assert "cannot open AVIF" in (target / "left_out.log").read_text()


def test_the_form_of_the_trainer_has_reasoning_in_the_text(tmp_path):
    record = json.loads((exported(tmp_path, [TURNS[1]], form="trainer") / "llava.json").read_text())[0]
    assert record["conversations"][1] == {"from": "gpt", "value": "<think>\nbecause\n</think>\n\nSo."}
