"""DeepSeek-VL gives the logits, gradients and pixels of its classes in transformers, with one tower and with two."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    DeepseekVLConfig,
    DeepseekVLForConditionalGeneration,
    DeepseekVLHybridConfig,
    DeepseekVLHybridForConditionalGeneration,
)
from transformers.models.deepseek_vl import DeepseekVLImageProcessorPil
from transformers.models.deepseek_vl_hybrid import DeepseekVLHybridImageProcessorPil

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    VISION,
    assert_packed_equals_separate,
    assert_same_gradients,
    assert_same_logits_and_images_matter,
    copy_weights,
    differences,
    of_own_shapes,
    randomised,
    renamed,
)
from tests.train.test_sam import SAM
from tests.train.tiny import pack
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.generate import generate
from vlmdata_train.model.image_plan import ImagePlan
from vlmdata_train.model.model import VisionLanguageModel, build_model, image_plan
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.parts import make_part
from vlmdata_train.model.pixels import normalise
from vlmdata_train.model.vision_half import CLIP_MEAN, CLIP_STD

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SIGLIP = {"hf_vision": {"config": {"model_type": "siglip_vision_model", **VISION}, "layer": -1, "norm": True}}
HIGH = {"sam": {"config": SAM, "side": 4, "mean": CLIP_MEAN, "std": CLIP_STD}}
ONE_TOWER = ModelRecipe(
    encoder=SIGLIP, preprocessing="resize_pad", abstractor="mlp",
    language={"hf_causal": {"config": {"model_type": "llama", **TEXT}}},
)  # fmt: skip
TWO_TOWERS = replace(ONE_TOWER, encoder={"side_by_side": {"towers": (HIGH, SIGLIP)}}, abstractor="hybrid_mlp")
RECIPES = {"one tower": ONE_TOWER, "two towers": TWO_TOWERS}
LANGUAGE = {"model.language_model.": "language.model.", "lm_head.": "language.lm_head."}
NAMES = {
    "one tower": renamed({
        "model.vision_model.": "encoder.model.", "model.aligner.linear1.": "abstractor.0.",
        "model.aligner.linear2.": "abstractor.2.", **LANGUAGE,
    }),
    "two towers": renamed({
        "model.high_res_vision_model.": "encoder.towers.0.model.",
        "model.high_res_vision_neck.": "encoder.towers.0.reducer.neck.",
        "model.high_res_vision_proj.conv1.": "encoder.towers.0.reducer.halve.0.",
        "model.high_res_vision_proj.conv2.": "encoder.towers.0.reducer.halve.1.",
        "model.high_res_vision_alpha": "encoder.towers.0.reducer.alpha",
        "model.vision_model.": "encoder.towers.1.model.", "model.aligner.high_res_vision_proj.": "abstractor.of_tower.0.",
        "model.aligner.vision_proj.": "abstractor.of_tower.1.", "model.aligner.proj.": "abstractor.output.", **LANGUAGE,
    }),
}  # fmt: skip
SIZES = {"one": [(40, 60)], "two": [(90, 33), (32, 32)], "three": [(20, 70), (300, 41), (64, 50)]}


def both(design: str) -> tuple[Any, VisionLanguageModel]:
    """Make a reference with random weights, and our model with the same weights."""
    parts = {"vision_config": {"model_type": "siglip_vision_model", **VISION}, "text_config": {"model_type": "llama", **TEXT}}
    common = {**parts, "image_token_id": IMAGE_ID, "tie_word_embeddings": False}
    if design == "one tower":
        reference: Any = DeepseekVLForConditionalGeneration(DeepseekVLConfig(**common))
    else:
        sam = {"model_type": "sam_vision_model", **SAM}
        reference = DeepseekVLHybridForConditionalGeneration(DeepseekVLHybridConfig(**common, high_res_vision_config=sam))
    model = copy_weights(randomised(reference), RECIPES[design], NAMES[design])
    if design == "two towers":  # copy_weights compares the settings of a single tower only
        pairs = [(reference.config.high_res_vision_config, 0), (reference.config.vision_config, 1)]
        for config, number in pairs:
            assert not list(differences(model.encoder.towers[number].model.config.to_dict(), config.to_dict()))
    return reference, model


def answers_of(reference: Any, batch: Batch) -> Callable[[Any], Tensor]:
    """Return a function that computes the reference's logits for the batch's text and given tiles."""
    names = ["pixel_values", "high_res_pixel_values"] if hasattr(reference.model, "high_res_vision_model") else ["pixel_values"]
    normalisation = {"pixel_values": HALF, "high_res_pixel_values": (CLIP_MEAN, CLIP_STD)}

    def answers(tiles: list[Tensor]) -> Tensor:
        inputs = {}
        for number, name in enumerate(reversed(names)):  # the tile of high resolution is first
            own = torch.stack(list(tiles)[number :: len(names)])
            inputs[name] = normalise(own, *normalisation[name], torch.float32)
        return reference(input_ids=batch.input_ids, **inputs).logits

    return answers


@pytest.mark.parametrize("images", SIZES)
@pytest.mark.parametrize("design", RECIPES)
def test_logits_equal_transformers(design: str, images: str) -> None:
    reference, model = both(design)
    batch = of_own_shapes(model, SIZES[images])
    assert len(batch.pixels) == len(SIZES[images]) * (1 if design == "one tower" else 2)
    assert batch.image_token_counts.tolist() == [16] * len(SIZES[images])
    assert_same_logits_and_images_matter(model, batch, answers_of(reference, batch))


@pytest.mark.parametrize("images", SIZES)
@pytest.mark.parametrize("design", RECIPES)
def test_gradients_of_all_weights_equal_transformers(design: str, images: str) -> None:
    reference, model = both(design)
    batch = of_own_shapes(model, SIZES[images])
    weights = torch.randn(batch.input_ids.shape[1], TEXT["vocab_size"], generator=torch.Generator().manual_seed(0))
    (answers_of(reference, batch)(batch.pixels)[0] * weights).sum().backward()
    (model.logits(batch)[0] * weights).sum().backward()
    assert_same_gradients(model, reference, NAMES[design])
    learned = [name for name, weight in reference.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert [name for name in learned if ".head." not in name] == []  # only SigLIP's pooling head is not used


@pytest.mark.parametrize("design", RECIPES)
def test_packed_samples_equal_separate_ones(design: str) -> None:
    _, model = both(design)
    assert_packed_equals_separate(model, [of_own_shapes(model, sizes, seed) for seed, sizes in enumerate(SIZES.values())])


@pytest.mark.parametrize("tile", [0, 1])
def test_each_tower_reads_its_own_tile(tile: int) -> None:
    _, model = both("two towers")
    batch = of_own_shapes(model, SIZES["one"])
    changed = list(batch.pixels)
    changed[tile] = 255 - changed[tile]
    with torch.no_grad():
        before, after = (model.encode_images(one)[0] for one in (batch, replace(batch, pixels=changed)))
    assert (before - after).abs().max() > 0.01
    model.abstractor.of_tower[tile].weight.data.zero_()
    with torch.no_grad():
        before, after = (model.encode_images(one)[0] for one in (batch, replace(batch, pixels=changed)))
    assert torch.equal(before, after)


def test_generated_tokens_are_those_of_the_full_forward_pass() -> None:
    _, model = both("two towers")
    batch = of_own_shapes(model, SIZES["two"])
    (new,) = generate(model, batch, max_new_tokens=4, stop_ids=[])
    ids = batch.input_ids[0].tolist()
    for number in new:
        length = len(ids)
        longer = replace(
            batch, input_ids=torch.tensor([ids]), labels=torch.tensor([ids]), position_ids=torch.arange(length)[None],
            segment_ids=torch.ones(1, length, dtype=torch.int32),
        )  # fmt: skip
        with torch.no_grad():
            values = model.logits(longer)[0, -1]
        values[[IMAGE_ID, *range(len(model.tokenizer), len(values))]] = -torch.inf
        assert int(values.argmax()) == number
        ids.append(number)


def test_every_weight_gets_a_gradient_from_a_batch_without_images() -> None:
    _, model = both("two towers")
    batch = pack(model, [([5, 6, 7], torch.zeros(0, 3, 8, 8, dtype=torch.uint8))])
    model.train().logits(batch).square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def picture(height: int, width: int) -> np.ndarray:
    """Make a picture of noise and waves."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(height * width).integers(0, 90, (height, width, 3))
    return (noise + (80 + 80 * np.sin(rows / 7 + columns / 5))[..., None]).astype(np.uint8)


SHAPES = [(1024, 1024), (384, 384), (700, 1100), (50, 33), (3, 900), (1500, 20), (1, 1)]


@pytest.mark.parametrize("means", [(HALF[0], CLIP_MEAN), (CLIP_MEAN, CLIP_MEAN)], ids=["unequal", "equal"])
def test_pixels_of_both_tiles_equal_those_of_the_image_processor(means: tuple[Any, Any]) -> None:
    raw: dict[str, Any] = {"do_rescale": False, "do_normalize": False, "return_tensors": "pt"}
    low_mean, high_mean = means
    low, high = make_part("encoder", SIGLIP).facts(), make_part("encoder", HIGH).facts()
    low, high = replace(low, image_size=384, mean=low_mean), replace(high, image_size=1024, mean=high_mean)
    part = make_part("preprocessing", "resize_pad")
    hybrid = DeepseekVLHybridImageProcessorPil(image_mean=list(low_mean), high_res_image_mean=list(high_mean))
    single = DeepseekVLImageProcessorPil(image_mean=list(low_mean))
    for shape in SHAPES:
        image = picture(*shape)
        ours, theirs = part.prepare(image, replace(high, towers=(high, low))), hybrid(Image.fromarray(image), **raw)
        assert torch.equal(ours[0].float(), theirs["high_res_pixel_values"][0].float())
        assert torch.equal(ours[1].float(), theirs["pixel_values"][0].float())
        alone = single(Image.fromarray(image), **raw)["pixel_values"].float()
        assert torch.equal(part.prepare(image, low).float(), alone)


def test_any_other_preprocessing_gives_one_tile_which_the_towers_share() -> None:
    model = build_model(replace(TWO_TOWERS, preprocessing="resize"))
    batch = of_own_shapes(model, SIZES["two"])
    assert [tuple(tile.shape) for tile in batch.pixels] == [(3, 64, 64)] * 2
    features, counts = model.encode_images(replace(batch, pixels=torch.stack(list(batch.pixels))))
    assert (features.shape, counts) == ((32, 32), [16, 16])


def test_what_does_not_fit_several_towers_is_refused() -> None:
    with pytest.raises(ValueError, match="makes a tile for each tower, but a video part"):
        image_plan(replace(TWO_TOWERS, video="frames"))
    with pytest.raises(ValueError, match="hybrid_mlp needs several towers"):
        build_model(replace(ONE_TOWER, abstractor="hybrid_mlp"))
    with pytest.raises(ValueError, match="shortest must be at most the side of a tile, 32 px"):
        build_model(replace(TWO_TOWERS, preprocessing={"resize_pad": {"shortest": 33}}))
    plan: ImagePlan = image_plan(TWO_TOWERS)
    with pytest.raises(ValueError, match="cannot divide the width 33"):
        plan.abstractor.build(plan.facts, 33, plan.facts.grid(64, 64))
