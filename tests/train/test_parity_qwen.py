"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL, with images of any size and M-RoPE, give the logits of their classes in transformers."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as their_size

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    answers_of,
    assert_packed_equals_separate,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_own_shapes,
    one_row,
    randomised,
)
from tests.train.tiny import pack, randomise
from vlmdata_train.convert.families.qwen2_5_vl import Qwen25Vl
from vlmdata_train.convert.families.qwen2_vl import Qwen2Vl
from vlmdata_train.convert.families.qwen3_vl import Qwen3Vl
from vlmdata_train.encoders.qwen2_vl import in_squares
from vlmdata_train.model.generate import generate
from vlmdata_train.model.model import build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.pixels import normalise
from vlmdata_train.model.repeated_blocks import blocks_of, recompute
from vlmdata_train.preprocessing.smart_size import smart_resize

TEXT = {**TEXT, "rms_norm_eps": 1e-6, "max_window_layers": 28}  # settings with different defaults on both sides
VISION = {"depth": 2, "embed_dim": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4, "spatial_merge_size": 2}
SIZES = [(40, 22), (9, 30)]
RECIPE = ModelRecipe(
    encoder={"qwen2_vl": {"config": {**VISION, "hidden_size": 32}}}, abstractor="patch_merger",
    preprocessing={"smart_size": {"min_pixels": 128, "max_pixels": 1024}}, positions={"mrope": {"sections": (1, 1, 2)}},
    language={"hf_causal": {"config": {"model_type": "qwen2", **TEXT}}},
)  # fmt: skip


WINDOWS = {"depth": 3, "hidden_size": 32, "intermediate_size": 40, "num_heads": 4, "patch_size": 4, "spatial_merge_size": 2,
           "window_size": 16, "fullatt_block_indexes": [1], "out_hidden_size": 32}  # fmt: skip
RECIPE_25 = replace(RECIPE, encoder={"qwen2_5_vl": {"config": WINDOWS}}, abstractor={"patch_merger": {"norm": "rms"}})
DEEP = {"depth": 4, "hidden_size": 32, "intermediate_size": 40, "num_heads": 4, "patch_size": 4, "spatial_merge_size": 2,
        "num_position_embeddings": 36, "deepstack_visual_indexes": [0, 2], "out_hidden_size": 32}  # fmt: skip
TEXT_3 = {**TEXT, "head_dim": 16}
RECIPE_3 = ModelRecipe(
    encoder={"qwen3_vl": {"config": DEEP}}, abstractor="deep_merger", fusion="deep_tokens",
    preprocessing={"smart_size": {"min_pixels": 128, "max_pixels": 1024}},
    positions={"interleaved_mrope": {"sections": (4, 2, 2)}},
    language={"hf_causal": {"config": {"model_type": "qwen3", **TEXT_3}}},
)  # fmt: skip
TEXT_2 = {**TEXT, "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [1, 1, 2]}}
TEXT_3_MROPE = {**TEXT_3, "rope_parameters": {**TEXT_2["rope_parameters"], "mrope_section": [4, 2, 2]}}
FAMILIES: dict[str, tuple[ModelRecipe, Qwen2Vl, dict[str, Any], dict[str, Any]]] = {
    "Qwen2-VL": (RECIPE, Qwen2Vl(), {**VISION, "hidden_size": 32}, TEXT_2),
    "Qwen2.5-VL": (RECIPE_25, Qwen25Vl(), WINDOWS, TEXT_2),
    "Qwen3-VL": (RECIPE_3, Qwen3Vl(), DEEP, TEXT_3_MROPE),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_two_images_of_different_shapes_equal_transformers(family: str) -> None:
    recipe, known, vision, text = FAMILIES[family]
    config = known.their_config(vision_config=vision, text_config=text, image_token_id=IMAGE_ID)
    reference: Any = randomised(known.their_class(config))
    model = copy_weights(reference, recipe, known.our_name)
    batch = of_own_shapes(model, SIZES)
    counts = batch.image_token_counts.tolist()
    facts = model.plan.facts
    sides = [model.plan.preprocessing.tile_size(width, height, facts) for height, width in SIZES]
    assert counts == [rows * columns // 64 for rows, columns in sides]
    grids = torch.tensor([[1, rows // 4, columns // 4] for rows, columns in sides])

    kinds = (batch.input_ids == IMAGE_ID).int()  # without this Qwen2-VL gives image tokens the positions of text
    answers = answers_of(reference, batch, image_grid_thw=grids, mm_token_type_ids=kinds)

    def theirs(tiles: list[torch.Tensor]) -> torch.Tensor:
        patches = [in_squares(normalise(t[None], facts.mean, facts.std, torch.float32), 4, 2, 2) for t in tiles]
        return answers(torch.cat(patches))

    expected_places, _ = reference.model.get_rope_index(batch.input_ids, kinds, grids)
    assert torch.equal(model.place(batch), expected_places)
    assert_same_logits_and_images_matter(model, batch, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_separate_with_three_position_axes(family: str) -> None:
    model = build_model(FAMILIES[family][0]).eval()
    randomise(model)
    assert_packed_equals_separate(model, [of_own_shapes(model, SIZES, seed=1), of_own_shapes(model, [(16, 40)], seed=2)])


def test_recomputed_deepstack_features_give_every_weight_a_gradient() -> None:
    model = build_model(RECIPE_3).train()
    randomise(model)
    blocks, gradients = blocks_of(model.language), []
    for again in (False, True):
        recompute(blocks, [again] * len(blocks))
        model.zero_grad()
        model.logits(of_own_shapes(model, SIZES)).square().mean().backward()
        gradients.append({name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None})
    torch.testing.assert_close(gradients[0], gradients[1])
    assert gradients[0]["abstractor.deeper.1.mlp.0.weight"].any() and gradients[0]["encoder.model.pos_embed.weight"].any()
    model.zero_grad()
    model.logits(pack(model, [([5, 6, 7], torch.zeros(0, 3, 8, 8))])).sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fusion": "tokens"}, "the tower also returns features of 2 earlier layers. Use the fusion `deep_tokens`"),
        ({"encoder": {"qwen2_vl": {"config": VISION}}}, "the tower returns no features of earlier layers"),
        (
            {"encoder": {"qwen3_vl": {"config": {**DEEP, "deepstack_visual_indexes": [0, 1, 2, 3]}}}},
            "of 4 earlier layers, so the language model must have at least 4 layers",
        ),
    ],
)
def test_feature_levels_that_do_not_fit_the_tower_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(replace(RECIPE_3, **change))


@pytest.mark.parametrize("family", ["Qwen2-VL", "Qwen3-VL"])
def test_generation_continues_after_the_images(family: str) -> None:
    model = build_model(FAMILIES[family][0]).eval()
    randomise(model)
    batch = of_own_shapes(model, SIZES, seed=3)
    [new] = generate(model, batch, max_new_tokens=4, stop_ids=[])
    for number in new:
        with torch.no_grad():
            values = model.logits(batch)[0, -1]
        values[[IMAGE_ID, *range(len(model.tokenizer), len(values))]] = -torch.inf
        assert int(values.argmax()) == number
        ids = [*batch.input_ids[0].tolist(), number]
        longer = one_row(ids, torch.zeros(0), [0, 0], [1, 1], SIZES)
        batch = replace(longer, pixels=batch.pixels, grids=batch.grids)


def test_sizes_and_pixels_equal_those_of_qwen2_vl_and_its_successors() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        height, width = rng.randint(1, 3000), rng.randint(1, 3000)
        if max(height, width) > 200 * min(height, width):
            continue
        for factor, least, most in ((28, 56 * 56, 28 * 28 * 1280), (32, 256 * 256, 4096 * 4096)):
            size = smart_resize(height, width, factor, least, most)
            assert size == their_size(height, width, factor, least, most)
            assert size[0] % factor == size[1] % factor == 0
    assert smart_resize(1, 20_000, 28, 56 * 56, 28 * 28 * 1280)[0] == 28
    model = build_model(RECIPE_3)
    image = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
    processor = Qwen2VLImageProcessorPil(
        patch_size=4, size={"shortest_edge": 128, "longest_edge": 1024}, do_rescale=False, do_normalize=False
    )
    theirs = processor(images=Image.fromarray(image), return_tensors="pt")
    tiles = model.preprocess(image).pixels
    assert torch.equal(in_squares(tiles, 4, 2, 2), theirs["pixel_values"].to(torch.uint8))
