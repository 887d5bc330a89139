"""Model FLOPs equal those that torch counts in the same step for matrix products and convolutions, without attention."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor, Shard, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.flop_counter import FlopCounterMode

from tests.train.parity import of_own_shapes
from tests.train.test_parity_idefics2 import RECIPE as IDEFICS_2
from tests.train.test_parity_qwen import RECIPE, RECIPE_3, RECIPE_25
from tests.train.tiny import TINY, pack, sample, tiny_model
from vlmdata_train.loop.flops import flops_per_token
from vlmdata_train.loop.model_flops import ModelFlops
from vlmdata_train.loop.optim import optimizer_bytes
from vlmdata_train.loop.train_step import MicroBatch
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.freezing import apply_parts
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import Lora, ModelRecipe, Part

SIGLIP = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
          "num_attention_heads": 2, "image_size": 32, "patch_size": 8}  # fmt: skip
TOWER = {"hf_vision": {"config": SIGLIP}}
FIXED = replace(TINY, encoder=TOWER)  # has no class token, which would be computed but not counted if it is not returned
TILES = replace(FIXED, preprocessing={"anyres": {"tiles": ((1, 2), (2, 1))}})
SHUFFLED = replace(FIXED, abstractor={"pixel_shuffle": {"layers": 2}})
TWO_TOWERS = replace(FIXED, encoder={"side_by_side": {"towers": [TOWER, {"hf_vision": {"config": {**SIGLIP, "patch_size": 16,
                     "image_size": 64, "hidden_size": 48}}}]}})  # fmt: skip
NAVIT = replace(IDEFICS_2, abstractor="mlp")
QUARTERS = replace(NAVIT, preprocessing={"edges": {"longest": 70, "shortest": 27, "split": True}})
LORA = Part(lora=Lora(rank=2, alpha=4))
FROZEN = Part(frozen=True)
KINDS = (nn.Linear, nn.Conv2d, nn.Conv3d)


def weights_of(part: nn.Module) -> nn.ParameterList:
    """Return the weights of matrix products, without biases, norms and tables. The output layer is left out, because the
    loss uses it."""
    layers = [m for name, m in part.named_modules() if isinstance(m, KINDS) and name != "lm_head"]
    return nn.ParameterList([m.weight for m in layers if isinstance(m.weight, nn.Parameter)])  # unused ones are buffers


def costs_of(model: VisionLanguageModel) -> dict[str, float]:
    """Return the costs as the learner computes them, for the weights that torch counts."""
    parts = {name: weights_of(part) for name, part in model.parts().items()}
    return flops_per_token(parts, {name: any(p.requires_grad for p in part.parameters()) for name, part in parts.items()})


def counted(model: VisionLanguageModel, batch: Batch, costs: dict[str, float], part: str) -> float:
    """Return the FLOPs that are counted for one part. The costs per token do not matter for measured parts."""
    flops = ModelFlops(model)
    flops.per_token = costs
    return flops.of_parts(MicroBatch.of(replace(batch, sources=["a"], keys=["k"]), torch.device("cpu")))[part]


def measured(model: VisionLanguageModel, batch: Batch) -> dict[str, float]:
    """Return the FLOPs that torch counts in each part, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        model(batch).sum().backward()
    products = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.convolution, torch.ops.aten.convolution_backward)
    found = {
        name: float(sum(flops for op, flops in of_module.items() if op in products))
        for name, of_module in counter.get_flop_counts().items()
    }
    encoder, abstractor = (found[f"VisionLanguageModel.{name}"] for name in ("encoder", "abstractor"))
    return {"encoder": encoder, "abstractor": abstractor, "language": found["Global"] - encoder - abstractor}


def squares(model: VisionLanguageModel) -> Batch:
    """Make a batch of one sample with two square images."""
    return pack(model, [sample(model, 20, 2, 1)])


def tiles(model: VisionLanguageModel) -> Batch:
    """Make a batch of one sample with a wide image, which becomes three tiles."""
    return replace(of_own_shapes(model, [(20, 60)]), pixels=torch.randn(3, 3, 32, 32), tile_counts=torch.tensor([3]))


def own_shapes(model: VisionLanguageModel) -> Batch:
    """Make a batch of one sample with two images of their own sizes."""
    return of_own_shapes(model, [(40, 22), (30, 30)])


CASES: dict[str, tuple[ModelRecipe, Any, int]] = {  # each with its number of patches
    "two squares": (FIXED, squares, 32), "tiles of a wide image": (TILES, tiles, 48),
    "squares of four patches": (SHUFFLED, squares, 32), "two towers": (TWO_TOWERS, squares, 32),
    "Qwen2-VL": (RECIPE, own_shapes, 124), "Qwen2.5-VL": (RECIPE_25, own_shapes, 124),
    "Qwen3-VL": (RECIPE_3, own_shapes, 124),
    "Idefics2's tower": (NAVIT, own_shapes, 5 * 3 + 4 * 4), "and quarters": (QUARTERS, own_shapes, 31 + 8 * 9),
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "batch_of", "patches"), CASES.values(), ids=CASES)
def test_the_flops_of_a_frozen_tower_before_trained_parts_equal_those_of_torch(
    recipe: ModelRecipe, batch_of: Any, patches: int
) -> None:
    model = tiny_model(recipe).train()
    batch = batch_of(model)
    assert ModelFlops(model).tokens_of_parts(MicroBatch.of(batch, torch.device("cpu")))["encoder"] == patches
    apply_parts(model.parts(), {"encoder": FROZEN})
    costs, true = costs_of(model), measured(model, batch)
    assert counted(model, batch, costs, "encoder") == true["encoder"] > 0
    assert counted(model, batch, costs, "language") == true["language"] > 0
    assert counted(model, batch, costs, "abstractor") == true["abstractor"] > 0


@pytest.mark.parametrize(
    ("table", "a_weight"),
    [
        ({}, 6.0),
        ({"language": FROZEN}, 4.0),
        ({"language": FROZEN, "encoder": FROZEN, "abstractor": LORA}, 4.0),
        ({"language": LORA, "encoder": FROZEN}, 4.0),
        ({"language": LORA, "encoder": LORA, "abstractor": LORA}, 4.0),
    ],
    ids=["trained", "frozen", "frozen, before it LoRA", "LoRA", "LoRA everywhere"],
)
def test_the_flops_of_a_language_model_equal_those_of_torch(table: dict[str, Part], a_weight: float) -> None:
    model = tiny_model(FIXED).train()
    plain = sum(p.numel() for p in weights_of(model.language))
    apply_parts(model.parts(), table)
    batch, costs = squares(model), costs_of(model)
    updates = sum(p.numel() for p in weights_of(model.language)) - plain
    assert costs["language"] == a_weight * plain + 6 * updates and (updates > 0) == (table.get("language") is LORA)
    assert counted(model, batch, costs, "language") == measured(model, batch)["language"]


def test_parts_before_all_trained_ones_cost_two_flops_per_weight() -> None:
    model = tiny_model(FIXED).train()
    apply_parts(model.parts(), {"encoder": FROZEN, "abstractor": FROZEN})
    costs = costs_of(model)
    assert costs["encoder"] == 2 * sum(p.numel() for p in weights_of(model.encoder))
    weights = sum(p.numel() for p in weights_of(model.abstractor))
    true = measured(model, squares(model))
    assert counted(model, squares(model), costs, "abstractor") == 2 * weights * 32 == true["abstractor"]


@pytest.mark.parametrize("part", [Part(), LORA], ids=["trained", "LoRA"])
def test_the_flops_of_a_trained_tower_equal_torchs_plus_unneeded_gradients(part: Part) -> None:
    """No gradient is passed to pixels, nor with LoRA to the inputs of the first updates. The count includes these gradients."""
    model = tiny_model(FIXED).train()
    apply_parts(model.parts(), {"encoder": part})
    costs, batch = costs_of(model), squares(model)
    unread = [model.encoder.model.embeddings.patch_embedding.weight]
    if part is LORA:
        attention = model.encoder.model.encoder.layers[0].self_attn
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj):
            unread += [layer.base_layer.weight, layer.lora_A["default"].weight]
    got, true = counted(model, batch, costs, "encoder"), measured(model, batch)["encoder"]
    assert got - 2 * 32 * sum(weight.numel() for weight in unread) == true > 0


def test_cross_attention_computes_keys_and_values_for_features_only() -> None:
    recipe = replace(FIXED, fusion={"cross_attention": {"every": 1}}, abstractor="linear")
    model = tiny_model(recipe).train()
    batch = squares(model)
    layers, tokens = list(model.fusion.layers), int((batch.segment_ids > 0).sum())
    costs = flops_per_token(model.parts(), dict.fromkeys(model.parts(), True))
    of_features = sum(p.numel() for layer in layers for p in (layer.key.weight, layer.value.weight))
    assert costs["fusion_features"] == 6 * of_features
    assert costs["fusion"] == 6 * (sum(p.numel() for p in model.fusion.parameters()) - of_features)
    assert batch.image_token_counts.tolist() == [1, 1]  # one text position each; the features are 16 each
    assert counted(model, batch, costs, "fusion_features") == 32 * costs["fusion_features"]
    assert counted(model, batch, costs, "fusion") == tokens * costs["fusion"]


@pytest.mark.parametrize("options", [{}, {"layers": "feed_forward", "shared_last": 1}, {"last_is_text": True}], ids=str)
def test_experts_cost_flops_for_image_tokens_and_their_originals_for_the_others(options: dict[str, Any]) -> None:
    model = tiny_model(replace(FIXED, fusion={"visual_experts": options})).train()
    batch, trained = squares(model), dict.fromkeys(model.parts(), True)
    costs = flops_per_token({**model.parts(), "language": model.language.model.layers, "fusion": model.fusion}, trained)
    weights = sum(weight.numel() for weight in model.fusion.parameters())
    assert costs["fusion_images"] == costs["language_text"] == 6 * weights and costs["fusion"] == 0
    of_images = 32 - 2 * options.get("last_is_text", False)  # of 52 tokens
    assert counted(model, batch, costs, "fusion_images") == of_images * 6 * weights
    assert counted(model, batch, costs, "language_text") == (52 - of_images) * 6 * weights
    norms = sum(p.numel() for layer in model.language.model.layers for p in layer.parameters() if p.ndim == 1)
    total = sum(counted(model, batch, costs, name) for name in costs if name[:3] in ("fus", "lan")) - 52 * 6 * norms
    assert total == measured(model, batch)["language"]


def test_tokens_that_skip_a_layer_cost_only_the_flops_of_its_router() -> None:
    model = tiny_model(replace(FIXED, fusion={"mixture_of_depths": {"capacity": 0.25}})).train()
    batch, layers = squares(model), model.language.model.layers
    costs = flops_per_token({**model.parts(), "language": layers}, dict.fromkeys(model.parts(), True))
    weights = [sum(p.numel() for p in weights_of(layer)) for layer in layers]
    norms = [sum(p.numel() for p in layer.parameters()) - own for layer, own in zip(layers, weights, strict=True)]
    assert costs["language_chosen"] == 6 * (weights[1] + norms[1]) and costs["language"] == 6 * (weights[0] + norms[0])
    assert costs["fusion_images"] == 6 * 32 and costs["fusion"] == 0
    passing = 20 + 2 * 4  # of 20 text tokens and two images of 16
    assert counted(model, batch, costs, "language_chosen") == passing * costs["language_chosen"]
    assert counted(model, batch, costs, "fusion_images") == 32 * costs["fusion_images"]
    products = 52 * 6 * weights[0] + passing * 6 * weights[1] + 32 * costs["fusion_images"]
    assert measured(model, batch)["language"] == products


def test_frozen_fusion_layers_pass_a_gradient_to_the_language_model() -> None:
    parts = {name: nn.Linear(10, 10, bias=False) for name in ("encoder", "abstractor", "fusion", "language")}
    costs = flops_per_token(parts, {"encoder": False, "abstractor": False, "fusion": False, "language": True})
    assert costs == {"encoder": 200, "abstractor": 200, "fusion": 400, "language": 600}


def test_a_text_only_batch_counts_no_image_flops() -> None:
    model = tiny_model(FIXED)
    batch = pack(model, [sample(model, 20, 0, 1)], padding=5)
    for name, passes in {"encoder": 0, "abstractor": 0, "fusion": 20, "language": 20}.items():
        assert counted(model, batch, {name: 1.0}, name) == passes


@contextmanager
def two_ranks() -> Iterator[None]:
    """Act as the first of two ranks that never communicate."""
    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def test_a_rank_counts_the_optimizer_state_of_its_share() -> None:
    with two_ranks():
        mesh = init_device_mesh("cpu", (2,))
        share = nn.Parameter(DTensor.from_local(torch.zeros(4, 8, dtype=torch.bfloat16), mesh, [Shard(0)]))
        assert share.numel() == 64
        assert (optimizer_bytes([share], compact=False), optimizer_bytes([share], compact=True)) == (320, 256)
    assert optimizer_bytes([nn.Parameter(torch.zeros(4, 8))], compact=True) == 256
