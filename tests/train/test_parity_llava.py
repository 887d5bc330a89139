"""LLaVA-1.5, LLaVA-NeXT and LLaVA-OneVision give the logits of their classes in transformers with the same weights."""

from dataclasses import replace

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    SiglipVisionConfig,
)

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    VISION,
    answers_of,
    assert_same_gradients,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_squares,
    randomised,
)
from vlmdata_train.convert.families.llava import Llava
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe

TOWER = {**VISION, "num_hidden_layers": 4}
CLIP = {"hf_vision": {"config": {"model_type": "clip_vision_model", **TOWER}}}
LLAMA = {"hf_causal": {"config": {"model_type": "llama", **TEXT}}}
PINPOINTS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]


def pictures(model: VisionLanguageModel, sizes: list[tuple[int, int]]) -> tuple[Batch, list[int]]:
    """Make a batch of one sample with images of these (height, width), and the tiles of each."""
    tiles = [model.plan.preprocessing.tiles_of(width, height, model.plan.facts) for height, width in sizes]
    counts = [model.tokens_of(width, height) for height, width in sizes]
    return replace(of_squares(counts, tiles), image_sizes=torch.tensor(sizes)), tiles


def as_they_pad(pixels: torch.Tensor, tiles: list[int]) -> torch.Tensor:
    """Pad every image to the number of tiles of the largest: (P, 3, H, W) -> (images, tiles, 3, H, W)."""
    most = max(tiles)
    return torch.stack([torch.cat([t, t.new_zeros(most - len(t), 3, 32, 32)]) for t in pixels.split(tiles)])


def test_llava_1_5_equals_transformers() -> None:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**TOWER), text_config=LlamaConfig(**TEXT), image_token_id=IMAGE_ID,
        image_seq_length=16,
    )  # fmt: skip
    reference = randomised(LlavaForConditionalGeneration(config))
    recipe = ModelRecipe(encoder=CLIP, preprocessing="pad", abstractor="mlp", language=LLAMA)
    model = copy_weights(reference, recipe, Llava().our_name)
    batch = of_squares([16, 16])
    assert_same_logits_and_images_matter(model, batch, answers_of(reference, batch))


def test_llava_with_several_feature_layers_and_class_token_equals_transformers() -> None:
    layers = [-2, -4]
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**TOWER), text_config=LlamaConfig(**TEXT), image_token_id=IMAGE_ID,
        image_seq_length=17, vision_feature_layer=layers, vision_feature_select_strategy="full",
    )  # fmt: skip
    reference = randomised(LlavaForConditionalGeneration(config))
    tower = {"hf_vision": {**CLIP["hf_vision"], "layer": layers, "tokens": "all"}}
    model = copy_weights(reference, ModelRecipe(encoder=tower, abstractor="mlp", language=LLAMA), Llava().our_name)
    batch = of_squares([17])
    assert_same_logits_and_images_matter(model, batch, answers_of(reference, batch))


def test_llava_next_equals_transformers_on_a_wide_a_high_and_a_small_image() -> None:
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**TOWER), text_config=LlamaConfig(**TEXT), image_token_id=IMAGE_ID,
        image_grid_pinpoints=PINPOINTS,
    )  # fmt: skip
    reference = randomised(LlavaNextForConditionalGeneration(config))
    recipe = ModelRecipe(encoder=CLIP, preprocessing="anyres", abstractor="mlp", language=LLAMA)
    model = copy_weights(reference, recipe, Llava().our_name)
    sizes = [(40, 100), (333, 57), (20, 20)]
    batch, tiles = pictures(model, sizes)

    answers = answers_of(reference, batch, image_sizes=batch.image_sizes)
    assert_same_logits_and_images_matter(model, batch, lambda pixels: answers(as_they_pad(pixels, tiles)))


def onevision(**anyres: object) -> tuple[LlavaOnevisionForConditionalGeneration, VisionLanguageModel]:
    """Return a reference of LLaVA-OneVision with at most 4 tiles, and our model with the same weights."""
    grid = [[32 * rows, 32 * columns] for rows in range(1, 5) for columns in range(1, 5)]
    vision = {**TOWER, "vision_use_head": False}
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**vision), text_config=LlamaConfig(**TEXT), image_token_id=IMAGE_ID,
        image_grid_pinpoints=grid, vision_feature_layer=-2, vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4", video_token_index=299,
    )  # fmt: skip
    reference = randomised(LlavaOnevisionForConditionalGeneration(config))
    tiles_of = [(rows, columns) for rows in range(1, 5) for columns in range(1, 5)]
    recipe = ModelRecipe(
        encoder={"hf_vision": {"config": {"model_type": "siglip_vision_model", **vision}}}, abstractor="mlp",
        preprocessing={"anyres": {"tiles": tiles_of, "max_tiles": 4, **anyres}}, language=LLAMA,
    )  # fmt: skip
    return reference, copy_weights(reference, recipe, Llava().our_name)


def test_llava_onevision_scales_an_image_down_to_its_largest_number_of_tiles() -> None:
    reference, model = onevision()
    sizes = [(128, 120), (40, 30)]
    batch, tiles = pictures(model, sizes)

    assert int(batch.image_token_counts[0]) < 16 + 16 * 16 + 16, "the first image must be scaled down"
    answers = answers_of(reference, batch, image_sizes=batch.image_sizes, batch_num_images=torch.tensor([1, 1]))
    assert_same_logits_and_images_matter(model, batch, lambda pixels: answers(as_they_pad(pixels, tiles)))


def test_llava_onevision_equals_transformers_on_several_images_of_one_tile() -> None:
    reference, model = onevision(several="pad")
    sizes = [(128, 120), (40, 30), (9, 99)]
    counts = [model.plan.tokens_of(width, height, several=True) for height, width in sizes]
    assert counts == [17, 17, 17]
    batch = replace(of_squares(counts), image_sizes=torch.tensor(sizes))
    answers = answers_of(reference, batch, image_sizes=batch.image_sizes, batch_num_images=torch.tensor([3]))
    assert_same_logits_and_images_matter(model, batch, lambda pixels: answers(pixels[:, None]))
    model.logits(batch).square().sum().backward()
    answers(batch.pixels[:, None]).square().sum().backward()
    assert_same_gradients(model, reference, Llava().our_name)
