"""A checkpoint holds the second tokenizer of an abstractor, and needs no other folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.constants import HF_HUB_CACHE

from bench.inputs.tars import jpeg
from tests.train.bert import bert_tokenizer
from tests.train.runs import MODEL, tiny_recipe, write_data
from tests.train.shards import drawing
from vlmdata_train.__main__ import main
from vlmdata_train.abstractors.instruct_q_former import InstructQFormer
from vlmdata_train.convert.restore import restore
from vlmdata_train.loop.loop import run_training
from vlmdata_train.model.model_recipe import ModelRecipe, with_stored_tokenizers
from vlmdata_train.model.question_text import load_question_tokenizer

pytestmark = pytest.mark.whole

Q_FORMER = {"queries": 3, "width": 8, "layers": 2, "heads": 2, "mlp_width": 12}
TEXT = "What colour is it?"


def parts(kind: str, folder: Path) -> dict[str, Any]:
    """Return the entry of an abstractor that reads the question with the tokenizer in this folder."""
    if kind == "instruct_q_former":
        return {kind: {**Q_FORMER, "tokenizer": str(folder)}}
    return {kind: {"q_former": Q_FORMER, "tokenizer": str(folder)}}


def run(data: str, out: Path, **changes: Any) -> Path:
    """Train for one step and return the checkpoint."""
    checkpoint = run_training(tiny_recipe(data, out, steps=1, **changes)).checkpoint
    assert checkpoint is not None
    return checkpoint


@pytest.mark.parametrize("kind", ["instruct_q_former", "context_tokens"])
def test_a_checkpoint_is_used_and_continued_without_the_folder_of_the_tokenizer(tmp_path: Path, kind: str) -> None:
    bert_tokenizer().save_pretrained(tmp_path / "bert")
    data = write_data(tmp_path / "data", captions=0, conversations=24)
    model = {**MODEL, "abstractor": parts(kind, tmp_path / "bert")}
    checkpoint = run(data, tmp_path / "run", model=model)
    shutil.rmtree(tmp_path / "bert")
    moved = tmp_path / "elsewhere"
    shutil.move(checkpoint, moved)
    shutil.rmtree(tmp_path / "run")
    load_question_tokenizer.cache_clear()
    one, _ = restore(moved, "cpu")
    assert one.question_ids is not None and one.question_ids(TEXT) == bert_tokenizer()(TEXT)["input_ids"]
    assert main(["evaluate", str(moved), data, "--samples", "4", "--answer-tokens", "2"]) == 0
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg(drawing("red", "circle")))
    assert main(["chat", str(moved), str(photo), "--ask", TEXT, "--max-tokens", "2"]) == 0
    for name, again in {"same": model, "none": None}.items():  # a recipe with the model, or without
        other, _ = restore(run(data, tmp_path / name, model=again, start=str(moved)), "cpu")
        assert other.question_ids is not None and other.question_ids(TEXT) == one.question_ids(TEXT)


def test_the_tokenizer_in_a_folder_of_a_model_on_the_hub_is_loaded() -> None:
    model = Path(HF_HUB_CACHE) / "models--owner--model"  # as the hub's client keeps it, for reading without a connection
    bert_tokenizer(truncation_side="left").save_pretrained(model / "snapshots/1/qformer_tokenizer")
    for file in ("refs/main", ".no_exist/1/qformer_tokenizer/config.json"):  # the commit, and a file that the hub lacks
        (model / file).parent.mkdir(parents=True)
        (model / file).write_text("1")
    part = InstructQFormer(tokenizer="owner/model/qformer_tokenizer", max_question=5)
    assert part.question_ids(None, TEXT) == bert_tokenizer()("is it?")["input_ids"]


def test_a_checkpoint_without_a_second_tokenizer_has_no_folder_for_it(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", captions=0, conversations=24)
    model = {**MODEL, "abstractor": {"instruct_q_former": Q_FORMER}}
    checkpoint = run(data, tmp_path / "run", model=model)
    assert not (checkpoint / "question_tokenizer").exists()
    saved = ModelRecipe(**json.loads((checkpoint / "recipe.json").read_text())["model"])
    assert with_stored_tokenizers(saved, checkpoint).abstractor == {"instruct_q_former": Q_FORMER}
    one: Any = restore(checkpoint, "cpu")[0]
    assert one.abstractor.transformer.embeddings.word_embeddings.num_embeddings == len(one.tokenizer)
