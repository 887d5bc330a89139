"""Published conversations go through a run and an export, and come out as they were."""

import json
from pathlib import Path

import pytest

from tests.real_data import real_data
from vlmdata import run
from vlmdata.export_dataset import export
from vlmdata.recipe import parse


@pytest.mark.whole
def test_the_demo_of_llama_factory_is_exported_as_it_was_published(tmp_path):
    demo = real_data("D_instruction/llamafactory_mllm_demo")
    recipe = parse({"source": {"type": "messages", "path": str(demo / "mllm_demo.json")}, "shards": {"layout": "documents"}})
    run(recipe, tmp_path / "out", local=True, workers=1)
    export(tmp_path / "out", tmp_path / "to", to="messages", options={"form": "placeholders"})
    found = [json.loads(line) for line in (tmp_path / "to" / "messages.jsonl").read_text().splitlines()]
    assert by_text(found, tmp_path / "to") == by_text(json.loads((demo / "mllm_demo.json").read_text()), demo)
    info, published = (json.loads((folder / "dataset_info.json").read_text()) for folder in (tmp_path / "to", demo))
    for name in ("formatting", "columns"):
        assert info["vlmdata"][name] == published["mllm_demo"][name]
    assert info["vlmdata"]["tags"].items() >= published["mllm_demo"]["tags"].items()


def by_text(records: list[dict], folder: Path) -> list[tuple]:
    """Return (turns, images) of each record, sorted. A turn is (role, content), and an image is its bytes."""
    turns = [[(turn["role"], turn["content"]) for turn in record["messages"]] for record in records]
    images = [[(folder / path).read_bytes() for path in record["images"]] for record in records]
    return sorted(zip(turns, images, strict=True))
