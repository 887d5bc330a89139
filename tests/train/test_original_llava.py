"""LLaVA models in their original layout give the logits of transformers with the same weights, and are trained and exported."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.constants import HF_HUB_CACHE

from tests.train.original_files import assert_same_logits, assert_same_settings, trained
from tests.train.original_llava import ROWS, SYSTEM, WRITTEN, Written, write_llava
from tests.train.test_published import edit_json, loaded
from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.convert.restore import restore
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.export import export
from vlmdata_train.preprocessing.anyres import Anyres
from vlmdata_train.preprocessing.centre_crop import CentreCrop
from vlmdata_train.preprocessing.pad import Pad

pytestmark = pytest.mark.whole

TILES = Anyres(tiles=((2, 1), (1, 2), (2, 2), (1, 3)))  # (rows, columns)
PREPROCESSING = {
    "1.5": Pad(), "1.5, early keys": Pad(), "1.6": TILES, "1.6, Mistral": TILES, "1.6, Qwen2": CentreCrop(),
    "1.0": CentreCrop(),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_an_original_llava_has_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    write_llava(WRITTEN[name], tmp_path / "original", tmp_path / "reference")
    ours = loaded(tmp_path / "original")
    assert_same_settings(ours, tmp_path / "reference")
    assert ours.plan.preprocessing == PREPROCESSING[name]
    for images in (0, 1, 3):
        assert_same_logits(ours, tmp_path / "reference", images=images, rows=ROWS)


@pytest.mark.parametrize("name", [name for name, written in WRITTEN.items() if written.exported])
def test_an_original_llava_is_trained_and_exported_to_transformers(name: str, tmp_path: Path) -> None:
    write_llava(WRITTEN[name], tmp_path / "original", tmp_path / "reference")
    checkpoint = trained(tmp_path / "original", tmp_path)
    export(checkpoint, tmp_path / "export")
    ours, _ = restore(checkpoint, "cpu")
    for images in (0, 1, 3):
        assert_same_logits(ours, tmp_path / "export", images=images, rows=ROWS)
    assert json.loads((tmp_path / "export/config.json").read_text())["model_type"] == WRITTEN[name].exported


def test_an_original_llava_has_the_conversation_of_vicuna(tmp_path: Path) -> None:
    write_llava(WRITTEN["1.5"], tmp_path / "original", tmp_path / "reference")
    template = prompter_of(loaded(tmp_path / "original")).template
    turns = [("user", "<image>\nWhat?"), ("assistant", "A cat."), ("user", "Why?"), ("assistant", "So.")]
    messages = [{"role": role, "content": content} for role, content in turns]
    asked = f"{SYSTEM} USER: <image>\nWhat? ASSISTANT: A cat.</s>USER: Why? ASSISTANT:"
    assert template.render(messages[:3], add_generation_prompt=True) == asked
    assert template.render(messages, add_generation_prompt=False) == f"{asked} So.</s>"
    system = {"role": "system", "content": "Be brief."}
    assert template.render([system, *messages[:1]], add_generation_prompt=True) == ("Be brief. USER: <image>\nWhat? ASSISTANT:")


def test_the_tables_of_words_get_rows_with_the_mean_for_the_image_token(tmp_path: Path) -> None:
    write_llava(WRITTEN["1.5"], tmp_path / "original", tmp_path / "reference")
    model = loaded(tmp_path / "original")
    assert model.image_token_id == ROWS
    for table in (model.lm_head.weight, model.language.get_input_embeddings().weight):
        assert len(table) == 384
        assert torch.allclose(table[ROWS:], table[:ROWS].mean(0).expand(20, -1), atol=1e-6)


@pytest.fixture
def hub_tower(tmp_path: Path) -> Iterator[str]:
    """Write the tower of a model as the cache of the hub has it, and yield its name."""
    write_llava(WRITTEN["1.5"], tmp_path / "original", tmp_path / "reference")
    place = Path(HF_HUB_CACHE) / "models--vlmdata-tests--clip-on-the-hub"
    (place / "refs").mkdir(parents=True)
    (place / "refs/main").write_text("0" * 40)
    shutil.move(tmp_path / "original/clip-tiny", place / "snapshots" / ("0" * 40))
    edit_json(tmp_path / "original/config.json", mm_vision_tower="vlmdata-tests/clip-on-the-hub")
    yield "vlmdata-tests/clip-on-the-hub"
    shutil.rmtree(place)


def test_a_tower_with_a_name_on_the_hub_is_read_from_there(hub_tower: str, tmp_path: Path) -> None:
    assert_same_logits(loaded(tmp_path / "original"), tmp_path / "reference", images=1, rows=ROWS)


def test_a_tower_with_a_path_is_looked_for_in_the_folder_of_the_model(tmp_path: Path) -> None:
    write_llava(Written(keys=WRITTEN["1.5"].keys, tower="/mnt/models/clip-tiny"), tmp_path / "original", tmp_path / "reference")
    assert_same_logits(loaded(tmp_path / "original"), tmp_path / "reference", images=1, rows=ROWS)


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": "many"}, "language: the configuration of .*original: .*hidden_size"),
    ({"mm_projector_type": "resampler"}, "abstractor: .* has the projector 'resampler', but only linear and mlp2x_gelu"),
    ({"mm_projector_type": "identity"}, "abstractor: .* has the projector 'identity', but only"),
    ({"mm_vision_select_feature": "cls"}, "encoder: .* the features 'cls', but .* one of patch, cls_patch"),
    ({"mm_vision_select_layer": None}, "encoder: .* has the layer None"),
    ({"mm_hidden_size": 96}, "encoder: .* needs features of width 96, but its tower .*clip-tiny has the width 32"),
    ({"s2": True}, "encoder: .* reads images at several scales"),
    ({"image_aspect_ratio": "anyres"}, "preprocessing: .* has image_aspect_ratio 'anyres' with mm_patch_merge_type 'flat'"),
    ({"mm_patch_merge_type": "spatial"}, "preprocessing: .* 'pad' with mm_patch_merge_type 'spatial'"),
    ({"image_aspect_ratio": "anyres_max_9", "mm_patch_merge_type": "spatial_unpad"}, "preprocessing: .* 'anyres_max_9'"),
    ({**WRITTEN["1.6"].keys, "image_grid_pinpoints": [[16, 20]]}, "preprocessing: image_grid_pinpoints .* must be pairs"),
    ({**WRITTEN["1.6"].keys, "image_grid_pinpoints": "(1x1),(2x2)"}, "preprocessing: image_grid_pinpoints .* must be pairs"),
    ({**WRITTEN["1.6"].keys, "image_grid_pinpoints": None}, "preprocessing: image_grid_pinpoints .* must be pairs"),
    ({"mm_use_im_start_end": True}, "writing: .* has tokens around images"),
    ({"mm_vision_tower": None}, "encoder: .* names no image tower"),
    ({"mm_vision_tower": "openai/absent"}, "encoder: the image tower 'openai/absent' of .* Copy the folder of this tower into"),
    ({"mm_vision_tower": "/etc/absent"}, "encoder: .* names its image tower by a path, '/etc/absent', which is not opened"),
    ({"mm_vision_tower": "../reference"}, "encoder: .* names its image tower by a path, '../reference', which is not opened"),
    ({"mm_vision_tower": "a/.."}, r"encoder: .* names its image tower by a path, 'a/\.\.', which is not opened"),
    ({"model_type": "llava_mpt"}, ".* is a llava_mpt model, but only models of these types can be loaded"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), CHANGES)
def test_a_part_that_cannot_be_loaded_is_named_before_work(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_llava(WRITTEN["1.5"], tmp_path / "original", tmp_path / "reference")
    edit_json(tmp_path / "original/config.json", **changes)
    with pytest.raises(RecipeError, match=f"^start: {message}"):
        model_of(str(tmp_path / "original"))


def test_another_tower_than_a_clip_is_refused(tmp_path: Path) -> None:
    write_llava(WRITTEN["1.5"], tmp_path / "original", tmp_path / "reference")
    edit_json(tmp_path / "original/clip-tiny/config.json", model_type="siglip")
    with pytest.raises(RecipeError, match=r"encoder: .*clip-tiny is a siglip, but LLaVA's original format has"):
        model_of(str(tmp_path / "original"))


def test_code_in_the_folder_of_a_tower_is_not_run(tmp_path: Path) -> None:
    write_llava(WRITTEN["1.5"], tmp_path / "original", tmp_path / "reference")
    tower = tmp_path / "original/clip-tiny"
    edit_json(tower / "config.json", model_type="own_tower", auto_map={"AutoConfig": "own.Config"})
    (tower / "own.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')")
    with pytest.raises(RecipeError, match="clip-tiny is a own_tower, but LLaVA's original"):
        model_of(str(tmp_path / "original"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("adapter_config.json", "holds only LoRA updates. Merge them into their base model first"),
        ("mm_projector.bin", "holds only the projector of LLaVA's first stage"),
    ],
)
def test_a_folder_without_a_language_model_is_refused_before_work(file: str, message: str, tmp_path: Path) -> None:
    original = tmp_path / "original"
    write_llava(WRITTEN["1.5"], original, tmp_path / "reference")
    for path in original.glob("pytorch_model*"):
        path.unlink()
    (original / file).write_text("{}")
    with pytest.raises(RecipeError, match=f"start: {original} {message}"):
        model_of(str(original))


def test_a_missing_file_of_the_index_is_named_before_work(tmp_path: Path) -> None:
    original = tmp_path / "original"
    write_llava(WRITTEN["1.5"], original, tmp_path / "reference")
    (original / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(RecipeError, match=f"start: {original} has no pytorch_model-00002-of-00002.bin, which its index names"):
        model_of(str(original))


def test_missing_weights_of_the_tower_are_named_before_work(tmp_path: Path) -> None:
    original = tmp_path / "original"
    write_llava(WRITTEN["1.5"], original, tmp_path / "reference")
    (original / "clip-tiny/pytorch_model.bin").unlink()
    with pytest.raises(RecipeError, match=f"start: {original}/clip-tiny has no weights"):
        model_of(str(original))


def test_an_adapter_for_an_original_model_is_refused(tmp_path: Path) -> None:
    write_llava(WRITTEN["1.5"], tmp_path / "original", tmp_path / "reference")
    parts = {"language": {"lora": {"rank": 2, "alpha": 4}}, "encoder": {"frozen": True}}
    checkpoint = trained(tmp_path / "original", tmp_path, parts=parts)
    with pytest.raises(RecipeError, match=r"--adapter: .*original has the format of its authors' code"):
        export(checkpoint, tmp_path / "adapter", adapter=True)


@pytest.mark.parametrize("row", [(0,), (0, 0)])
def test_a_table_of_words_without_rows_is_refused(row: tuple[int, ...], tmp_path: Path) -> None:
    original = tmp_path / "original"
    write_llava(WRITTEN["1.5"], original, tmp_path / "reference")
    for file in original.glob("pytorch_model-*.bin"):
        tensors = torch.load(file)
        torch.save({name: tensor[row] if "embed_tokens" in name else tensor for name, tensor in tensors.items()}, file)
    with pytest.raises(
        ValueError, match=r"language: the weight 'model\.embed_tokens\.weight' has the shape \(.*\), but the model"
    ):
        loaded(original)
