"""InternVL models in their original layout give the logits of transformers with the same weights, and are trained and
exported."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.train.original_files import assert_same_logits, assert_same_settings, trained
from tests.train.original_internvl import WRITTEN, write_internvl
from tests.train.test_published import edit_json, loaded
from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.convert.restore import restore
from vlmdata_train.export import export
from vlmdata_train.model.model import image_plan
from vlmdata_train.preprocessing.dynamic_tiles import DynamicTiles
from vlmdata_train.preprocessing.pad import Pad
from vlmdata_train.preprocessing.resize import Resize

pytestmark = pytest.mark.whole

ROWS = 320


@pytest.mark.parametrize("name", WRITTEN)
def test_an_original_internvl_has_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    write_internvl(WRITTEN[name], tmp_path / "original", tmp_path / "reference")
    ours = loaded(tmp_path / "original")
    assert_same_settings(ours, tmp_path / "reference")
    for images in (0, 1, 3):
        assert_same_logits(ours, tmp_path / "reference", images=images, rows=ROWS)


@pytest.mark.parametrize("name", WRITTEN)
def test_an_original_internvl_is_trained_and_exported_to_transformers(name: str, tmp_path: Path) -> None:
    write_internvl(WRITTEN[name], tmp_path / "original", tmp_path / "reference")
    checkpoint = trained(tmp_path / "original", tmp_path)
    export(checkpoint, tmp_path / "export")
    ours, _ = restore(checkpoint, "cpu")
    for images in (0, 1, 3):
        assert_same_logits(ours, tmp_path / "export", images=images, rows=ROWS)
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("reference", "export"))
    assert after["architectures"] == before["architectures"]
    assert after["text_config"]["model_type"] == before["text_config"]["model_type"]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, DynamicTiles(max_tiles=4)),
        ({"min_dynamic_patch": 2, "max_dynamic_patch": 6}, DynamicTiles(min_tiles=2, max_tiles=6)),
        ({"use_thumbnail": False}, DynamicTiles(max_tiles=4, thumbnail=False)),
        ({"dynamic_image_size": False}, Resize()),
        ({"dynamic_image_size": False, "pad2square": True}, Pad()),
    ],
)
def test_the_keys_of_tiles_choose_the_preprocessing(keys: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    write_internvl(WRITTEN["Qwen2"], tmp_path / "original", tmp_path / "reference", **keys)
    assert image_plan(model_of(str(tmp_path / "original"))).preprocessing == expected


def test_a_template_that_is_unknown_leaves_the_template_of_the_tokenizer(tmp_path: Path) -> None:
    write_internvl(WRITTEN["Qwen2"], tmp_path / "original", tmp_path / "reference", template="internvl_zh")
    assert "chat_template" not in model_of(str(tmp_path / "original")).language["hf_causal"]


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"llm_config": {"architectures": ["Phi3ForCausalLM"]}}, "language: .* has the language model Phi3ForCausalLM, but only"),
    ({"llm_config": None}, "language: .* has the language model None, but only"),
    ({"ps_version": "v1"}, "abstractor: .* has the pixel shuffle 'v1', which transposes an image"),
    ({"downsample_ratio": 0.3}, "abstractor: downsample_ratio of .* must be 1 divided by a whole number, not 0.3"),
    ({"downsample_ratio": 0}, "abstractor: downsample_ratio of .* must be 1 divided by a whole number, not 0"),
    ({"force_image_size": 32}, "encoder: .* has tiles of 32 pixels .* table of positions is for 16 pixels"),
    ({"use_llm_lora": 16}, r"language: .* has LoRA updates \(use_llm_lora\)\. Merge them"),
    ({"use_backbone_lora": 16}, r"encoder: .* has LoRA updates \(use_backbone_lora\)"),
    ({"vision_config": {"layer_norm_eps": 1e-5, "image_size": 16}}, "encoder: .* with layer_norm_eps 1e-05, but"),
]


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_a_part_that_cannot_be_loaded_is_named_before_work(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_internvl(WRITTEN["Qwen2"], tmp_path / "original", tmp_path / "reference", **changes)
    with pytest.raises(RecipeError, match=f"^start: {message}"):
        model_of(str(tmp_path / "original"))


def test_a_tokenizer_of_code_is_refused_before_work(tmp_path: Path) -> None:
    original = tmp_path / "original"
    write_internvl(WRITTEN["InternLM2"], original, tmp_path / "reference")
    code = {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]}
    edit_json(original / "tokenizer_config.json", tokenizer_class="InternLM2Tokenizer", auto_map=code)
    with pytest.raises(RecipeError, match=f"^start: the tokenizer of {original} is Python code in its folder, which is never"):
        model_of(str(original))


@pytest.mark.parametrize("name", ["Qwen2", "InternLM2"])
def test_a_missing_or_foreign_weight_is_named_with_its_part(name: str, tmp_path: Path) -> None:
    original = tmp_path / "original"
    write_internvl(WRITTEN[name], original, tmp_path / "reference")
    file = next(path for path in original.glob("*.safetensors") if any("qkv" in key for key in load_file(path)))
    tensors = load_file(file)
    lost = next(key for key in tensors if "qkv.weight" in key)
    save_file({key: tensor for key, tensor in tensors.items() if key != lost}, file)
    with pytest.raises(ValueError, match=r"the files lack the weight '.*_proj\.weight' \(missing weights: 3\)"):
        loaded(original)
    save_file({**tensors, "vision_model.head.weight": tensors[lost].clone()}, file)
    with pytest.raises(ValueError, match=r"the model has no place for the weight 'vision_model\.head\.weight'"):
        loaded(original)


@pytest.mark.parametrize("key", ["llm_config", "vision_config"])
def test_half_a_configuration_that_is_no_object_is_refused(key: str, tmp_path: Path) -> None:
    write_internvl(WRITTEN["InternLM2"], tmp_path / "original", tmp_path / "reference", **{key: [1]})
    with pytest.raises(
        RecipeError, match=rf"^start: .*original: {key} of its config\.json must be a JSON object, not '\[1\]'$"
    ):
        model_of(str(tmp_path / "original"))


@pytest.mark.parametrize("rows", [slice(0, -3), 0])
def test_fused_rows_that_do_not_fit_the_heads_are_refused(rows: Any, tmp_path: Path) -> None:
    original = tmp_path / "original"
    write_internvl(WRITTEN["InternLM2 with biases"], original, tmp_path / "reference")
    for file in original.glob("*.safetensors"):
        tensors = load_file(file)
        cut = {name: tensor[rows].clone() if "wqkv.bias" in name else tensor for name, tensor in tensors.items()}
        save_file(cut, file)
    with pytest.raises(
        ValueError, match=r"original: the weight '.*wqkv\.bias' has the shape \(.*\), which does not fit the heads"
    ):
        loaded(original)
