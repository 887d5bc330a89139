"""Conversations exported in LLaVA's form have its fields, and the source llava_json reads them back unchanged."""

import json

import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.exporting.made import caption, make_dataset
from tests.exporting.read_back import both
from tests.exports.talks import MIXED, PLAIN, TURNS
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
