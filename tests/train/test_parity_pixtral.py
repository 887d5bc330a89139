"""Pixtral and Mistral 3, whose images have their own shapes and row ends, give the logits of their classes in transformers."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralVisionConfig,
)
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    answers_of,
    assert_packed_equals_separate,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_own_shapes,
    randomised,
)
from tests.train.tiny import pack, randomise
from vlmdata_train.convert.families.mistral3 import Mistral3
from vlmdata_train.convert.families.pixtral import Pixtral
from vlmdata_train.model.model import build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.pixels import normalise

VISION = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64,
          "patch_size": 8, "head_dim": 8}  # fmt: skip
SIZES = [(50, 90), (8, 30)]
RECIPE = ModelRecipe(
    encoder={"pixtral": {"config": VISION}}, preprocessing={"longest_edge": {"longest": 64}}, abstractor="mlp",
    language={"hf_causal": {"config": {"model_type": "mistral", **TEXT}}},
    writing={"rows": {"row_end": "[IMG_BREAK]", "last_row_end": "[IMG_END]"}},
)  # fmt: skip
RECIPE_3 = replace(
    RECIPE, encoder={"mistral3": {"config": VISION}}, preprocessing={"longest_edge": {"longest": 64, "square": 2}},
    abstractor={"normed_merger": {"eps": 1e-6}},
)  # fmt: skip
# with pixels per token, and the token counts of SIZES
FAMILIES: dict[str, tuple[ModelRecipe, Any, Any, int, list[tuple[int, int]]]] = {
    "Pixtral": (RECIPE, LlavaConfig, LlavaForConditionalGeneration, 8, [(40, 64), (8, 32)]),
    "Mistral 3": (RECIPE_3, Mistral3Config, Mistral3ForConditionalGeneration, 16, [(48, 64), (16, 32)]),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_two_images_with_different_shapes_and_row_tokens_equal_transformers(family: str) -> None:
    recipe, configuration, reference_of, unit, expected_sides = FAMILIES[family]
    options = {"vision_feature_select_strategy": "full"} if family == "Pixtral" else {}
    config = configuration(
        vision_config=PixtralVisionConfig(**VISION), text_config=MistralConfig(**TEXT), image_token_id=IMAGE_ID,
        vision_feature_layer=-1, **options,
    )  # fmt: skip
    reference = randomised(reference_of(config))
    model = copy_weights(reference, recipe, (Pixtral() if family == "Pixtral" else Mistral3()).our_name)
    batch = of_own_shapes(model, SIZES)
    sides = [model.plan.preprocessing.tile_size(width, height, model.plan.facts) for height, width in SIZES]
    assert sides == expected_sides
    assert batch.image_token_counts.tolist() == [rows // unit * (columns // unit) for rows, columns in sides]
    answers = answers_of(reference, batch, image_sizes=torch.tensor(sides))

    def theirs(tiles: list[torch.Tensor]) -> torch.Tensor:
        facts, most = model.plan.facts, [max(side) for side in zip(*sides, strict=True)]
        pixels = [normalise(tile[None], facts.mean, facts.std, torch.float32) for tile in tiles]
        padded = [functional.pad(p, (0, most[1] - p.shape[3], 0, most[0] - p.shape[2])) for p in pixels]
        return answers(torch.cat(padded))

    assert_same_logits_and_images_matter(model, batch, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_separate_and_every_weight_has_a_gradient_even_for_one_row(family: str) -> None:
    model = build_model(FAMILIES[family][0])
    randomise(model)
    one, other = of_own_shapes(model, SIZES, seed=1), of_own_shapes(model, [(8, 8)], seed=2)
    assert_packed_equals_separate(model, [one, other])
    for batch in (other, pack(model, [([5, 6, 7], torch.zeros(0, 3, 8, 8))])):
        model.zero_grad()
        model.train()(batch).square().sum().backward()
        assert [name for name, weight in model.named_parameters() if weight.grad is None and "lm_head" not in name] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_and_pixels_equal_those_of_pixtral(family: str) -> None:
    unit = FAMILIES[family][3]  # Mistral 3's processor reports the side of a square of merged patches as its patch size
    model, rng = build_model(FAMILIES[family][0]), random.Random(0)
    processor = PixtralImageProcessorPil(
        patch_size={"height": unit, "width": unit}, size={"longest_edge": 64}, do_rescale=False, do_normalize=False
    )
    for _ in range(60):
        height, width = rng.randint(1, 150), rng.randint(1, 150)
        if max(height, width) > 64 * min(height, width):  # their processor would make a side of zero pixels
            continue
        image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        theirs = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"][0].to(torch.uint8)
        prepared = model.preprocess(image)
        assert torch.equal(prepared.pixels[0], theirs)
        assert prepared.tokens == theirs.shape[1] // unit * (theirs.shape[2] // unit)
    assert model.plan.preprocessing.tile_size(10_000, 1, model.plan.facts) == (unit, 64)
