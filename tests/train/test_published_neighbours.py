"""Settings of published models that no part has are refused, and the message names the part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.train.published import write_published
from tests.train.tiny import tiny_model
from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.convert.restore import start_weights
from vlmdata_train.convert.save_published import format_of
from vlmdata_train.encoders.qwen3_vl import Qwen3Vl
from vlmdata_train.model.model import build_model
from vlmdata_train.model.model_recipe import ModelRecipe

pytestmark = pytest.mark.whole

IMAGES, CONFIG = ("processor_config.json", "image_processor"), ("config.json",)
LARGER = {"height": 20, "width": 20}
SIGLIP = {"model_type": "siglip_vision_model", "image_size": 16, "patch_size": 4}

# (family, file and keys of an object in it, changed entries, start of the message)
REFUSED: list[tuple[str, tuple[str, ...], dict[str, Any], str]] = [
    ("LLaVA 1.5", IMAGES, {"do_normalize": False}, "preprocessing: the image processor of .* has do_normalize: False"),
    ("Qwen2-VL", IMAGES, {"rescale_factor": 1 / 127.5}, "preprocessing: the image processor of .* has rescale_factor: 0.0078"),
    (
        "LLaVA 1.5",
        IMAGES,
        {"size": {"shortest_edge": 20}},
        "preprocessing: .* resizes images to {'shortest_edge': 20} and crop",
    ),
    (
        "LLaVA 1.5",
        IMAGES,
        {"crop_size": LARGER},
        "preprocessing: .* crops to {'height': 20, 'width': 20}, but the tower has 16",
    ),
    ("LLaVA 1.5", IMAGES, {"do_center_crop": False}, "preprocessing: .* short side of images, but crops no square"),
    ("LLaVA-NeXT", IMAGES, {"image_grid_pinpoints": [[16, 48]]}, "preprocessing: .* differ from those of its image processor"),
    ("LLaVA-OneVision", CONFIG, {"vision_aspect_ratio": "anyres"}, "preprocessing: vision_aspect_ratio must be anyres_max_N"),
    ("LLaVA-OneVision", CONFIG, {"vision_feature_select_strategy": "default"}, "encoder: .* leaves out the first patch"),
    ("ViP-LLaVA", CONFIG, {"projector_layernorm_eps": 0.1}, "abstractor: the epsilon of the norm must be 1e-05, not 0.1"),
    ("ViP-LLaVA", CONFIG, {"vision_config": SIGLIP}, "encoder: .* leaves out the first patch"),
    ("BLIP-2", (*CONFIG, "qformer_config"), {"hidden_act": "relu"}, "abstractor: .* has hidden_act: relu, but only gelu"),
    ("BLIP-2", (*CONFIG, "qformer_config"), {"layer_norm_eps": 0.1}, "abstractor: .* has layer_norm_eps: 0.1, but only 1e-12"),
    ("Llama 3.2 Vision", (*CONFIG, "text_config"), {"hidden_act": "gelu"}, "fusion: .* must have the activation silu"),
]


@pytest.mark.parametrize(("family", "place", "changes", "message"), REFUSED)
def test_a_setting_that_no_part_has_is_refused_before_training(
    family: str, place: tuple[str, ...], changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file, *keys = place
    path = write_published(family, tmp_path) / file
    facts = inner = json.loads(path.read_text())
    for key in keys:
        inner = inner[key]
    inner.update(changes)
    path.write_text(json.dumps(facts))
    with pytest.raises(RecipeError, match=f"^start: {message}"):
        model_of(str(tmp_path))


def test_pinpoints_that_are_no_whole_tiles_are_refused(tmp_path: Path) -> None:
    start = write_published("LLaVA-NeXT", tmp_path)
    for file in ("config.json", "processor_config.json"):
        text = (start / file).read_text()
        (start / file).write_text(json.dumps(with_pinpoints(json.loads(text))))
    with pytest.raises(RecipeError, match=r"^start: preprocessing: the image_grid_pinpoints of .* must be multiples of 16"):
        model_of(str(start))


def with_pinpoints(facts: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration, or a processor's, with tiles of 24 x 16 px."""
    inner = facts.get("image_processor", facts)
    inner["image_grid_pinpoints"] = [[24, 16]]
    return facts


def test_layers_of_a_tower_out_of_order_are_refused() -> None:
    tower = Qwen3Vl(config={"depth": 4, "deepstack_visual_indexes": [2, 0]})
    with pytest.raises(ValueError, match=r"deepstack_visual_indexes must ascend, not \[2, 0\]"):
        tower.facts()


def test_a_language_model_with_other_names_of_weights_is_refused_by_the_format() -> None:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4}
    ours = tiny_model(ModelRecipe(
        encoder={"hf_vision": {"config": {**SIGLIP, "hidden_size": 32, "num_attention_heads": 4}, "layer": -1}},
        preprocessing="resize", language={"hf_causal": {"config": {"model_type": "gpt2", **sizes}}},
    ))  # fmt: skip
    with pytest.raises(ValueError, match=r"language: LLaVA's format supports only a model with the weights `model\.\*`"):
        format_of(ours)


def test_missing_files_of_weights_are_named_once(tmp_path: Path) -> None:
    start = write_published("LLaVA 1.5", tmp_path)
    ours = build_model(model_of(str(start)))
    (start / "model.safetensors").unlink()
    with pytest.raises(RecipeError, match=r"^start: .* has no weights") as caught:
        start_weights(ours, str(start))()
    assert str(caught.value).count("start:") == 1
