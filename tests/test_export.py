"""An export has the content of the tars, and a source reads it back without loss."""

import json
from pathlib import Path

import datasets
import pytest
import webdataset
import yaml

from tests.engine.site import manifest, site
from tests.sources.pictures import picture
from tests.test_forget import samples
from vlmdata import run
from vlmdata.export_dataset import export
from vlmdata.exporting.conversations import record_of
from vlmdata.exporting.exporter import Unsuitable
from vlmdata.exporting.image_columns import schema_of
from vlmdata.exports.parquet import features
from vlmdata.recipe import parse
from vlmdata.step import RecipeError

pytestmark = pytest.mark.whole


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    with site(folder, 48, samples=20) as web:
        run(web.recipe, folder / "out", local=True, workers=1)
        run(web.recipe, folder / "documents", overrides={"shards.layout": "documents"}, local=True, workers=1)
    return folder / "out"


def raw(loaded: datasets.Dataset, column: str) -> datasets.Dataset:
    kind = datasets.Image(decode=False)
    return loaded.cast_column(column, kind if column == "image" else datasets.List(kind))


@pytest.mark.parametrize("to", ["parquet", "hf"])
def test_exported_pairs_keep_every_byte(out, tmp_path, to):
    assert export(out, tmp_path / "to", to=to) == 36
    if to == "hf":
        loaded = datasets.load_from_disk(str(tmp_path / "to"))
    else:
        loaded = datasets.load_dataset(str(tmp_path / "to"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["image"].size == (48, 48)
    found = {
        row["key"]: {"jpg": row["image"]["bytes"], "txt": row["caption"].encode(), "json": row["json"].encode()}
        for row in raw(loaded, "image")
    }
    assert found == samples(out)


@pytest.mark.parametrize("layout", ["captions", "documents"])
def test_the_schema_without_datasets_equals_that_of_datasets(layout):
    text, image = datasets.Value("string"), datasets.Image()
    columns = {"image": image, "caption": text}
    if layout == "documents":
        columns = {"url": text, "images": datasets.List(image), "texts": datasets.List(text)}
    expected = datasets.Features({"key": text, **columns, "json": text})
    made = schema_of(features(layout))
    assert made.equals(expected.arrow_schema)
    assert datasets.Features.from_arrow_schema(made) == expected


def test_features_name_no_type_that_old_versions_of_datasets_lack():
    assert "List" not in json.dumps(features("documents")) and features("documents")["texts"] == [features("captions")["json"]]


def test_webdataset_reads_the_exported_tars(out, tmp_path):
    assert export(out, tmp_path / "to", to="tars") == 36
    tars = sorted(map(str, (tmp_path / "to").glob("*.tar")))
    assert json.loads((tmp_path / "to" / "sizes.json").read_text()) == {"00000.tar": 20, "00001.tar": 16}
    assert [Path(tar).name for tar in tars] == ["00000.tar", "00001.tar"]
    found = {sample.pop("__key__"): sample for sample in webdataset.WebDataset(tars, shardshuffle=False)}
    assert {key: {name: sample[name] for name in ("jpg", "txt", "json")} for key, sample in found.items()} == samples(out)


def test_documents_become_aligned_lists(out, tmp_path):
    source = out.parent / "documents"
    export(source, tmp_path / "to", to="parquet")
    loaded = raw(datasets.load_dataset(str(tmp_path / "to"), split="train", cache_dir=str(tmp_path / "cache")), "images")
    expected = samples(source)
    for row in loaded:
        sample = expected.pop(row["key"])
        assert [image["bytes"] for image in row["images"] if image] == [sample["0.jpg"]]
        assert row["texts"] == json.loads(sample["json"])["texts"] and len(row["texts"]) == len(row["images"])
    assert not expected


def test_the_source_files_reads_an_exported_folder(out, tmp_path):
    export(out, tmp_path / "to", to="folder")
    recipe = tmp_path / "again.yaml"
    steps = [{"resize": {"mode": "no", "skip_reencode": True}}]
    recipe.write_text(yaml.safe_dump({"source": {"type": "files", "path": str(tmp_path / "to")}, "steps": steps}))
    run(recipe, tmp_path / "again", local=True, workers=1)
    assert manifest(tmp_path / "again")["kept"] == 36
    pairs = {(sample["jpg"], sample["txt"]) for sample in samples(tmp_path / "again").values()}
    assert pairs == {(sample["jpg"], sample["txt"]) for sample in samples(out).values()}
    addresses = {json.loads(sample["json"])["url"] for sample in samples(out).values()}
    assert {json.loads(sample["json"])["url"] for sample in samples(tmp_path / "again").values()} == addresses


def test_the_source_hf_dataset_reads_exported_parquet(out, tmp_path):
    export(out, tmp_path / "to", to="parquet")
    recipe = tmp_path / "again.yaml"
    steps = [{"resize": {"mode": "no", "skip_reencode": True}}]
    recipe.write_text(yaml.safe_dump({"source": {"type": "hf_dataset", "path": str(tmp_path / "to")}, "steps": steps}))
    run(recipe, tmp_path / "again", local=True, workers=1)

    def stored(folder: Path, key: str) -> set[tuple]:
        found = [(json.loads(sample["json"]), sample) for sample in samples(folder).values()]
        return {(facts["url"], facts[key], sample["jpg"], sample["txt"]) for facts, sample in found}

    assert stored(tmp_path / "again", "source_key") == stored(out, "key")


def test_existing_files_are_not_overwritten(out, tmp_path):
    with pytest.raises(RecipeError, match="exists"):
        export(out, tmp_path, to="parquet")
    assert list(Path(tmp_path).iterdir()) == []


SCHEMA = {"type": "function", "function": {"name": "w", "description": "d", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "w", "arguments": '{"city": "Bern", "at": [1, null]}'}}
TALKS = [
    {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "  Weather?\n", "name": "Ann"},
            {"role": "assistant", "reasoning_content": "I look.", "content": None, "tool_calls": [CALL, {**CALL, "id": "c2"}]},
            {"role": "tool", "content": "sun", "name": "w", "tool_call_id": "c1"},
            {"role": "tool", "content": "", "tool_call_id": "c2"},
            {"role": "assistant", "content": "Sunny.", "weight": 0},
            {"role": "assistant", "reasoning_content": "Short.", "content": "Sun."},
        ],
        "tools": [SCHEMA],
        "id": 7,
    },
    {
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "And?"}, {"type": "image"}]},
            {"role": "assistant", "content": "Two."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "x"}, {"type": "thinking", "thinking": "y"}]},
        ],
        "images": ["1.png", "2.png"],
    },
]


def test_exported_conversations_are_read_back_as_the_same_messages(tmp_path):
    for number in (1, 2):
        (tmp_path / f"{number}.png").write_bytes(picture(number))
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, TALKS)))
    path = str(tmp_path / "m.jsonl")
    for number in range(2):
        recipe = parse({"source": {"type": "messages", "path": path}, "shards": {"layout": "documents"}})
        assert run(recipe, tmp_path / f"out{number}", local=True, workers=1)["dropped"] == []
        assert export(tmp_path / f"out{number}", tmp_path / str(number), to="messages") == 2
        path = str(tmp_path / str(number) / "messages.jsonl")
        found = sorted(map(json.loads, Path(path).read_text().splitlines()), key=lambda record: "images" in record)
        images = found[1].pop("images")
        assert [found[0], {**found[1], "images": ["1.png", "2.png"]}] == TALKS
        assert [(tmp_path / str(number) / image).read_bytes() for image in images] == [picture(1), picture(2)]
        assert list(found[0]["tools"][0]["function"]) == ["name", "description", "parameters"]


def test_rows_that_are_not_conversations_are_not_exported_as_messages(out, tmp_path):
    says = r"holds documents, and the format 'messages' holds conversations\. Formats for documents are .*parquet"
    with pytest.raises(RecipeError, match=says):
        export(out.parent / "documents", tmp_path / "to", to="messages")
    assert list(tmp_path.iterdir()) == []


TALK = {
    "roles": ["user", "assistant", "assistant"],
    "metadata": [None] * 3,
    "texts": ["a", '{"name": "w", "arguments": {}}', "b"],
}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"turns": [None, {"kind": "tool_call"}, None]}, "continues after its tool call"),
        ({"turns": [None, None, {"kind": "tool_call"}]}, "is not JSON with 'name' and 'arguments'"),
    ],
)
def test_fields_that_messages_cannot_hold_are_reported(more, problem):
    with pytest.raises(Unsuitable, match=problem):
        record_of({**TALK, **more}, {})
