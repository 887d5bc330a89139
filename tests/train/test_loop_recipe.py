"""A mistake in a training recipe or on the command line is reported in one clear line with exit status 2, before any work."""

import re

import pytest
import yaml

from tests.train.runs import MODEL, write_data
from vlmdata.shipped import PIPELINES
from vlmdata.step import RecipeError
from vlmdata_train.__main__ import main
from vlmdata_train.model.model_recipe import Lora, Part
from vlmdata_train.recipe_file import load, parse

GOOD = {"stage": "align", "model": MODEL, "data": "D", "out": "O", "steps": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lrr": 1}, r"no parameter 'lrr'. Did you mean 'lr'\?"),
        ({"lr": "fast"}, r"Recipe.lr = 'fast'"),
        ({"batches": {"token": 5}}, r"batches: Batches has no parameter 'token'. Did you mean 'tokens'\?"),
        ({"parts": {"encoder": {"freeze": True}}}, r"parts, encoder: Part has no parameter 'freeze'. Did you mean 'frozen'\?"),
        ({"parts": {"projector": {}}}, r"no part 'projector'"),
        ({"parts": {"language": {"frozen": True, "lr": 1.0}}}, r"a frozen part cannot have"),
        ({"parts": {n: {"frozen": True} for n in ("encoder", "abstractor", "fusion", "language")}}, r"every part is frozen"),
        ({"parts": {"language": {"lora": {"r": 8}}}}, r"language, lora: Lora has no parameter 'r'"),
        ({"steps": None}, r"set either `steps` or `epochs`"),
        ({"steps": 5, "epochs": 1}, r"set either `steps` or `epochs`"),
        ({"steps": None, "epochs": 1, "data": {"a": 0.5, "b": 0.5}}, r"a mixture has no end"),
        ({"optimizer": {"schedule": "cosinus"}}, r"optimizer: Optimizer.schedule = 'cosinus'"),
        ({"model": {"encoder": "clip"}}, r"model: ModelRecipe needs the parameter 'language'"),
        ({"data": None}, r"Recipe.data"),
        ({"steps": 0}, r"steps must be 1 or more, not 0"),
        ({"steps": 2**63}, r"steps must be 1 or more and less than 9223372036854775808, not 9223372036854775808"),
        ({"lr": float("inf")}, r"lr must be 0 or more, not inf$"),
        ({"seed": 2**64}, r"seed must be -9223372036854775808 or more and less than 18446744073709551616, not"),
        ({"held_out": {"answers": 2**63}}, r"held_out: HeldOut: answers must be 0 or more and less than 9223372036854775808"),
        ({"speed": {"threads": 10**9}}, r"speed: Speed: threads must be 1 or more and less than 4097, not 1000000000"),
        ({"batches": {"workers": 10**9}}, r"batches: Batches: workers must be 1 or more and less than 4097, not 1000000000"),
        ({"logs": {"spike": float("nan")}}, r"logs: Logs: spike must be 0 or more, not nan"),
        ({"optimizer": {"warmpu": 0.5}}, r"optimizer: Optimizer has no parameter 'warmpu'. Did you mean 'warmup'\?"),
        (
            {"parts": {"encoder": {"rules": [{"weights": "norms", "lrr": 1}]}}},
            r"parts, encoder, rules, 1: Rule has no parameter 'lrr'. Did you mean 'lr'\?",
        ),
        ({"logs": {"every": 0}}, r"logs: Logs: every must be 1 or more, not 0"),
        ({"held_out": {"fraction": 1.0}}, r"held_out: HeldOut: fraction must be 0 or more and less than 1, not 1.0"),
        ({"captions": "raw"}, r"Recipe.captions = 'raw'"),
        ({"captions": {"raw": "much"}}, r"Recipe.captions.raw = 'much': must be a number"),
        ({"captions": {}}, r"captions must have at least one weight above 0"),
        ({"captions": {"raw": 0, "synthetic": 0}}, r"captions must have at least one weight above 0"),
        ({"captions": {"raw": -1}}, r"the weight of 'raw' in captions must be a finite number of at least 0, not -1"),
        (
            {"captions": {"raw": float("nan")}},
            r"the weight of 'raw' in captions must be a finite number of at least 0, not nan",
        ),
        ({"tokenizer": {"vocabulary": 263}}, r"tokenizer: TinyTokenizer: vocabulary must be 264 or more, not 263"),
    ],
)
def test_each_mistake_is_reported_with_its_place_and_its_fix(change, message):
    with pytest.raises(RecipeError, match=message) as caught:
        parse({**GOOD, **change}, "r.yaml")
    assert str(caught.value).startswith("r.yaml") and "\n" not in str(caught.value)


def test_a_recipe_is_unchanged_after_it_is_written_and_read():
    tree = {**GOOD, "parts": {"language": {"lora": {"rank": 4}}}, "tokenizer": {"vocabulary": 300}}
    recipe = parse(tree)
    assert recipe.parts["language"] == Part(lora=Lora(rank=4))
    assert parse(yaml.safe_load(yaml.safe_dump(recipe.describe()))) == recipe


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("train/*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_complete_and_describes_itself(path):
    recipe = load(path.stem)
    assert recipe == load(path)
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(head) >= 4 and any("vlmdata train" in line for line in head)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["align", "tinny"], r"no training recipe 'tinny'. Did you mean 'tiny'\?"),
        (["align", "tiny", "--set", "data"], r"--set data: write a setting as"),
        (["align", "tiny", "--set", "data=/nowhere/at/all"], r"data: .*/nowhere/at/all"),
        (["align", "tiny", "--set", "data={data}", "--set", "model.encoder=open_clop"], r"Did you mean 'open_clip'\?"),
        (["align", "tiny", "--set", "data={data}", "--set", "start=/nowhere"], r"start: /nowhere is not a checkpoint, and"),
        (["chat", "/nowhere"], r"/nowhere is not a checkpoint"),
        (["evaluate", "/nowhere", "D", "--samples", "0"], r"--samples must be 1 or more, not 0"),
        (["align", "tiny", "--set", "data={data}", "--set", "speed.device=cuda"], r"torch sees no CUDA device"),
    ],
)
def test_misuse_is_reported_in_one_line_on_stderr_with_exit_status_2(words, message, tmp_path, capsys):
    assert_refused(words, message, tmp_path, capsys)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.abstractor={pixel_shuffle: {factor: 4}}", r"model: a grid of 6 x 6 patches cannot be divided into squares"),
        ("model.abstractor={pixel_shuffle: {factor: 0}}", r"model: the side of a square must be 1 patch or more, not 0"),
        (
            "model.encoder={open_clip: {config: {width: 96, layers: 3, patch_size: 16, image_size: 96}, layer: -9}}",
            r"model: open_clip: layer -9: feature index",
        ),
        ("model.encoder={qwen2_vl: {config: {embed_dmi: 8}}}", r"no field 'embed_dmi'. Did you mean 'embed_dim'\?"),
        (
            "model.encoder={qwen2_vl: {config: {embed_dim: a}}}",
            r"model: Field 'embed_dim' expected int, got str",
        ),
        ("model.encoder={siglip_navit: {config: {hiden_size: 8}}}", r"no field 'hiden_size'. Did you mean 'hidden_size'\?"),
        ("model.encoder={hf_vision: {config: {model_type: llama}}}", r"hf_vision: a llama has no image_size"),
        (
            "model.language={hf_causal: {config: {model_type: llama, hidden_size: 8, num_attention_heads: 0}}}",
            r"model: a size in a part's configuration, such as its number of heads, is 0",
        ),
        ("model.language={hf_causal: {config: {model_type: [llama]}}}", r"config needs a model_type, such as llama"),
        ("model.abstractor={mlp: [2]}", r"model: abstractor: the parameters of mlp must be a mapping, not \[2\]"),
        ("model.language={hf_causal: {config: {model_type: clip}}}", r"language: a clip is no causal language model"),
        ("model.encoder={open_clip: {config: {widht: 96}}}", r"no 'widht'. Did you mean 'width'\?"),
        ("model.language={hf_causal: {config: {model_type: lama}}}", r"no model_type 'lama'. Did you mean 'llama'\?"),
        ("model.language={hf_causal: {config: {model_type: llama, hiden_size: 8}}}", r"Did you mean 'hidden_size'\?"),
        (
            "model.language={hf_causal: {config: {model_type: llama, hidden_size: 8, num_attention_heads: 3}}}",
            r"model: .* not a multiple of the number of attention heads",
        ),
        ("parts.fusion.lora={rank: 4}", r"parts, fusion: lora: InPlace has no linear layer"),
        ("parts={encoder: {frozen: true}, abstractor: {frozen: true}, language: {frozen: true}}", r"nothing would be trained"),
        (
            "batches.sample_tokens=20",
            r"at most 20 tokens, and an image of 96 x 96 takes 36 of them. Raise `batches.sample_tokens`",
        ),
        ("held_out.fraction=1e-9", r"held_out.fraction: the value 1e-09 holds out no sample of"),
        ("speed.compile=true", r"speed.compile must be false on a CPU"),
    ],
)
def test_settings_that_exclude_each_other_are_reported_before_the_first_step(setting, message, tmp_path, capsys):
    words = ["align", "tiny", "--set", "data={data}", "--set", "logs.tensorboard=false", "--set", setting]
    assert_refused(words, message, tmp_path, capsys)


def assert_refused(words, message, tmp_path, capsys):
    """Run a command that must be refused in one line."""
    data = write_data(tmp_path / "data", captions=2, tars=1)
    out_too = ["--set", f"out={tmp_path}/o"] if words[0] == "align" else []
    status = main([*(word.replace("{data}", data) for word in words), *out_too])
    out, err = capsys.readouterr()
    assert status == 2 and out == ""
    assert re.search(message, err) and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "o" / "checkpoints").exists()


def test_a_value_may_be_set_by_its_dotted_path():
    recipe = load("tiny", overrides={"data": "D", "batches.tokens": 512})
    assert recipe.batches.tokens == 512 and recipe.batches.sample_tokens == 160
