"""Models with crops train on a dataset, and every weight of the image half changes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.runs import MODEL, made_model, tiny_recipe, weights, write_data
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop import setup
from vlmdata_train.loop.loop import run_training

pytestmark = pytest.mark.whole

CPU = Ranks(0, 1, torch.device("cpu"))
TOWER = {"width": 32, "layers": 2, "head_width": 16, "patch_size": 8, "image_size": 32}
NAVIT = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64,
         "patch_size": 8}  # fmt: skip
CLIP = {"encoder": {"open_clip": {"config": TOWER, "layer": -1}}}
POOL = {"attention_pool": {"layers": 1, "heads": 2, "head_width": 8}}
CASES: dict[str, dict[str, Any]] = {
    "overlapping_crops": {
        **CLIP, "preprocessing": {"overlapping_crops": {"max_crops": 2, "margin": 1}}, "abstractor": POOL,
        "writing": {"rows": {"row_end": "<im_col>", "start": "<im_start>", "image_token": "<im_patch>"}},
    },
    "hd_crops": {**CLIP, "preprocessing": {"hd_crops": {"max_crops": 2}}, "abstractor": {"pixel_shuffle": {"layers": 2}}},
    "paired_crops": {
        **CLIP, "preprocessing": {"paired_crops": {"max_crops": 4, "margin": 1}}, "abstractor": {"mlp": {"mlp_width": 24}},
        "fusion": {"tokens": {"prefix": "images"}},
    },
    "slices": {
        "encoder": {"siglip_navit": {"config": NAVIT}}, "preprocessing": {"slices": {"side": 24, "max_slices": 4}},
        "abstractor": {"query_resampler": {"queries": 4, "head_width": 8, "grid_queries": False}}, "writing": "slices",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_weight_of_the_image_half_changes(tmp_path: Path, name: str) -> None:
    model = {**MODEL, **CASES[name]}
    recipe = tiny_recipe(
        write_data(tmp_path / "data"), tmp_path / "out", model=model, batches={"tokens": 512, "sample_tokens": 256}
    )
    setup.seed_everything(recipe.seed, CPU)
    first = made_model(recipe, recipe.model, CPU)
    before = {key: weight.detach().clone() for key, weight in first.named_parameters()}
    after = weights(run_training(recipe).checkpoint)
    parts = ("encoder.", "abstractor.", "arrangement.")
    changed = {key: bool((after[key] != value).any()) for key, value in before.items() if key.startswith(parts)}
    # the bias of a key adds the same number to all scores of a query
    assert [key for key, is_new in changed.items() if not is_new and not key.endswith(("k_proj.bias", "key.bias"))] == []
    assert any(key.startswith("arrangement.") for key in changed) == (name == "hd_crops")
