"""Special token ids in a language model's class or folder may belong to another vocabulary, and are corrected or refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.train.runs import LLAMA, MODEL, tiny_recipe, weights, write_data
from tests.train.tiny import TINY, pack, tiny_model
from vlmdata.step import RecipeError
from vlmdata_train.__main__ import main
from vlmdata_train.languages.hf_causal import HfCausal
from vlmdata_train.loop.loop import run_training
from vlmdata_train.model.model import build_model
from vlmdata_train.model.tokens import byte_tokenizer, image_token_id

SHAPE = {name: value for name, value in LLAMA.items() if name != "model_type"}
FAMILIES: dict[str, dict[str, Any]] = {
    "phi": {}, "phi3": {}, "gemma2": {"head_dim": 16, "sliding_window": 8},
    "gemma3_text": {"head_dim": 16, "sliding_window": 8}, "qwen2": {}, "mistral": {}, "cohere": {}, "opt": {}, "starcoder2": {},
}  # fmt: skip


@pytest.mark.whole
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_with_ids_of_its_published_vocabulary_can_be_trained(tmp_path: Path, family: str) -> None:
    data = write_data(tmp_path / "data", captions=0, conversations=40)
    model = {**MODEL, "language": {"hf_causal": {"config": {"model_type": family, **SHAPE, **FAMILIES[family]}}}}
    result = run_training(tiny_recipe(data, tmp_path / "run", model=model, steps=8, optimizer={"warmup": 0}))
    assert result.steps == 8 and result.losses[-1] < result.losses[0] - 0.1
    assert result.checkpoint is not None
    biases = [name for name in weights(result.checkpoint) if name.endswith("lm_head.bias")]
    assert bool(biases) == (family == "phi")


@pytest.mark.parametrize("kind", ["phi", "phi3", "llama", "gemma2", "qwen2", "opt", "cwm", "starcoder2"])
def test_ids_missing_from_the_recipe_are_those_of_the_tokenizer(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_tokenizer()
    config = HfCausal(config={"model_type": kind, **SHAPE}).load_config()
    ids = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == ids
    assert config.vocab_size == 320


def test_ids_that_the_recipe_states_are_kept() -> None:
    stated = {"bos_token_id": 3, "eos_token_id": [4, 5], "pad_token_id": None}
    config = HfCausal(config={"model_type": "phi3", **SHAPE, **stated}).load_config()
    assert {name: getattr(config, name) for name in stated} == stated


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"pad_token_id": 32000}, "pad_token_id is 32000, but the vocabulary has the ids 0 to 319"),
        ({"pad_token_id": 320}, "pad_token_id is 320, but the vocabulary has the ids 0 to 319"),
        ({"pad_token_id": -1}, "pad_token_id is -1"),
        ({"eos_token_id": [2, 999]}, "eos_token_id is 999"),
        ({"bos_token_id": 500, "vocab_size": 500}, "bos_token_id is 500, but the vocabulary has the ids 0 to 499"),
    ],
)
def test_an_id_outside_the_vocabulary_in_the_recipe_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stated: dict[str, Any], message: str
) -> None:
    model = {**MODEL, "language": {"hf_causal": {"config": {"model_type": "phi3", **SHAPE, **stated}}}}
    with pytest.raises(RecipeError, match=re.escape(f"model: config: {message}")):
        run_training(tiny_recipe(write_data(tmp_path / "data"), tmp_path / "run", model=model))
    (tmp_path / "r.yaml").write_text(json.dumps({"model": model, "data": str(tmp_path / "data"), "out": str(tmp_path / "o"),
                                                 "steps": 1}))  # fmt: skip
    assert main(["instruct", str(tmp_path / "r.yaml")]) == 2
    output = capsys.readouterr().err.strip()
    assert message in output and output.endswith("Omit the field to use the tokenizer's id.") and "\n" not in output


def test_the_last_id_of_the_vocabulary_may_be_stated() -> None:
    assert HfCausal(config={"model_type": "phi3", **SHAPE, "pad_token_id": 319}).load_config().pad_token_id == 319


def folder_of(path: Path, tokenizer: Any, **ids: Any) -> str:
    """Write a published Phi-3 of 256 words whose configuration states ids of another vocabulary."""
    config = AutoConfig.for_model("phi3", **SHAPE, vocab_size=256, pad_token_id=None, bos_token_id=1, eos_token_id=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    file = path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **ids}))
    return str(path)


@pytest.mark.parametrize("ids", [{"pad_token_id": 32000}, {"pad_token_id": -1}, {"pad_token_id": 256, "bos_token_id": 9999}])
def test_a_published_folder_with_ids_outside_its_vocabulary_can_be_built(tmp_path: Path, ids: dict[str, int]) -> None:
    name = folder_of(tmp_path / "phi3", byte_tokenizer(), **ids)
    model = build_model(replace(TINY, language={"hf_causal": {"name": name}}))
    assert model.language.config.pad_token_id is None
    assert model.lm_head.weight.shape[0] == 320


@pytest.mark.parametrize("config", [{}, {"pad_token_id": 5}, {"model_type": "gemma", "head_dim": 8, "pad_token_id": 5}])
def test_the_padding_token_gets_a_gradient_where_a_text_contains_it(config: dict[str, Any]) -> None:
    """torch gives the row of `padding_idx` no gradient, but a text may hold that token."""
    model = tiny_model(replace(TINY, language={"hf_causal": {"config": {**LLAMA, **config}}}))
    pad = model.language.config.pad_token_id
    ids = [7, pad, 8, pad, 9]
    model.logits(pack(model, [(ids, torch.zeros(0, 3, 32, 32, dtype=torch.uint8))])).square().sum().backward()
    gradient = model.language.get_input_embeddings().weight.grad
    assert gradient is not None and gradient[pad].abs().sum() > 0


def test_an_end_token_that_also_pads_does_not_start_with_zero_weights(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path)
    part = HfCausal(config={"model_type": "llama", **SHAPE}, tokenizer=str(tmp_path))
    language = part.build(part.load_tokenizer())
    assert language.config.eos_token_id == tokenizer.eos_token_id and language.config.pad_token_id is None
    assert language.get_input_embeddings().weight[tokenizer.eos_token_id].abs().sum() > 0
    assert image_token_id(tokenizer) < 263


def test_padding_positions_give_no_gradient() -> None:
    model = tiny_model()
    pad = model.tokenizer.pad_token_id
    batch = pack(model, [([7, 8, 9], torch.zeros(0, 3, 32, 32, dtype=torch.uint8))], padding=3)
    batch.input_ids[batch.segment_ids == 0] = pad
    model(batch)[batch.segment_ids > 0].square().sum().backward()
    assert not model.language.get_input_embeddings().weight.grad[pad].any()
