"""Molmo 2, packed, gives the features, logits and gradients of its class in transformers."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from transformers import Molmo2Config, Molmo2ForConditionalGeneration
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor

from tests.train.parity import (
    TEXT,
    assert_same_settings,
    of_own_shapes,
    packed,
    randomised,
)
from tests.train.test_preprocessing import picture
from tests.train.tiny import TINY, tiny_model
from vlmdata_train.abstractors.linear import Linear
from vlmdata_train.convert.families.molmo2 import Molmo2
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe

VISION = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3, "patch_size": 8}
TOWER = {"model_type": "siglip_vision_model", **VISION, "image_size": 40, "vision_use_head": False}
WORDS = {**TEXT, "head_dim": 8}
RECIPE = ModelRecipe(
    encoder={"hf_vision": {"config": TOWER, "layer": [-1, -2]}},
    preprocessing={"overlapping_crops": {"max_crops": 6, "margin": 1, "keep_aspect": False, "antialias": False}},
    abstractor={"attention_pool": {"heads": 2, "head_width": 6, "mlp_width": 20}},
    fusion={"added_tokens": {"two_way": True}}, language={"hf_causal": {"config": {"model_type": "qwen3", **WORDS}}},
    writing={"rows": {
        "row_end": "<im_col>", "start": "<im_start>", "overview_start": "<low_res_im_start>", "end": "<im_end>",
        "image_token": "<im_patch>",
    }},
)  # fmt: skip
SIZES = [(40, 40), (75, 130), (20, 140)]  # height, width
PATCH, ROWS = 263, 260  # the id of the first token that is added to the byte tokenizer; rows of the output layer
IMAGE_IDS = torch.arange(PATCH, PATCH + 5)  # of `<im_patch>` and of the tokens around and between image tokens
NAMES = Molmo2()


def reference() -> Any:
    """Make a Molmo 2 with random weights."""
    config = Molmo2Config(
        vision_config={**VISION, "num_key_value_heads": 3, "head_dim": 8, "image_size": [40, 40]},
        adapter_config={
            "vision_feature_layer": [-1, -2], "hidden_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2,
            "head_dim": 6, "intermediate_size": 20, "text_hidden_size": 32,
        },
        text_config={**WORDS, "vocab_size": ROWS, "additional_vocab_size": 300 - ROWS}, image_patch_id=PATCH,
    )  # fmt: skip
    return randomised(Molmo2ForConditionalGeneration(config))


def copied(theirs: Any) -> VisionLanguageModel:
    """Build our model with the weights of the reference."""
    model = build_model(RECIPE).eval()
    assert_same_settings(model, theirs, ours_of, unlike=["vocab_size", "image_size"])
    weights = model.state_dict()
    found = {ours_of(name): weight for name, weight in theirs.state_dict().items()}
    assert set(weights) - set(found) == {f"encoder.model.post_layernorm.{leaf}" for leaf in ("weight", "bias")}
    model.load_state_dict({name: NAMES.our_tensor(name, own, len(weights[name])) for name, own in found.items()}, strict=False)
    return model


def ours_of(name: str) -> str:
    """Return our name of a weight of the reference."""
    ours = NAMES.our_name(name)
    assert ours is not None, name
    return ours


def sample(model: VisionLanguageModel, sizes: list[tuple[int, int]], seed: int) -> tuple[Batch, dict[str, Any]]:
    """Return a batch of one sample with images of these (height, width), and the inputs of the reference for it."""
    images = [picture(*size) for size in sizes]
    tiles = [torch.as_tensor(model.preprocess(image).pixels) for image in images]
    batch = replace(of_own_shapes(model, sizes, seed), pixels=torch.cat(tiles))
    process = Molmo2ImageProcessor(
        size={"height": 40, "width": 40}, patch_size=8, overlap_margins=[1, 1], max_crops=6, image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )  # fmt: skip
    pixels = process(images=[Image.fromarray(image) for image in images], return_tensors="pt")
    types = torch.isin(batch.input_ids, IMAGE_IDS).long()
    return batch, {"input_ids": batch.input_ids, "mm_token_type_ids": types, **pixels}


def test_the_features_of_images_of_several_crops_equal_molmo_2() -> None:
    theirs = reference()
    model = copied(theirs)
    batch, inputs = sample(model, SIZES, 0)
    assert len(set(batch.tile_counts.tolist())) > 1
    names = ("pixel_values", "image_token_pooling", "image_grids")
    with torch.no_grad():
        features, counts = model.encode_images(batch)
        expected = theirs.get_image_features(*(inputs[name] for name in names)).pooler_output
    assert counts == [len(one) for one in expected] == batch.image_token_counts.tolist()
    together = torch.cat(expected)
    assert (features - together).abs().max() < 1e-5 * together.abs().max()
    assert together.std() > 0.1


def test_packed_samples_equal_molmo_2_alone_with_gradients() -> None:
    theirs = reference()
    model = copied(theirs)
    samples = [sample(model, SIZES[:2], 0), sample(model, SIZES, 1), sample(model, SIZES[2:], 2)]
    ours = model.logits(packed(model, [batch for batch, _ in samples]))[0, :, :ROWS]
    expected = torch.cat([theirs(**inputs).logits[0] for _, inputs in samples])
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
    assert expected.std() > 0.1
    labels = torch.cat([batch.input_ids[0] for batch, _ in samples]).clamp(max=ROWS - 1)
    functional.cross_entropy(ours, labels).backward()
    functional.cross_entropy(expected, labels).backward()
    weights = dict(model.named_parameters())
    largest = max(float(weight.grad.abs().max()) for weight in theirs.parameters())
    assert set(weights) == {ours_of(name) for name, _ in theirs.named_parameters()}
    for name, weight in theirs.named_parameters():
        own = ours_of(name)
        mine, grad = weights[own].grad, NAMES.our_tensor(own, weight.grad, len(weights[own]))
        assert mine is not None, name
        assert (mine - grad).abs().max() < 1e-5 * max(float(grad.abs().max()), 0.01 * largest), name


@pytest.mark.parametrize("name", ["mm_token_type_ids", "pixel_values"])
def test_the_comparison_notices_causal_images_and_other_pixels(name: str) -> None:
    theirs = reference()
    _, inputs = sample(copied(theirs), SIZES[:2], 0)
    with torch.no_grad():
        difference = theirs(**inputs).logits - theirs(**inputs | {name: torch.zeros_like(inputs[name])}).logits
    assert difference.abs().max() > 0.01


def test_without_images_every_weight_of_the_image_half_gets_a_gradient() -> None:
    model = tiny_model(RECIPE).train()
    batch = of_own_shapes(model, SIZES[:1])
    none: dict[str, Any] = {name: getattr(batch, name)[:0] for name in ("tile_counts", "image_sizes", "is_video", "of_sample")}
    empty = replace(batch, pixels=torch.zeros(0, 3, 40, 40), **none)
    features, counts = model.encode_images(empty)
    assert (features.shape, counts) == ((0, 32), [])
    features.sum().backward()
    assert all(weight.grad is not None for part in (model.encoder, model.abstractor) for weight in part.parameters())


def with_frames(batch: Batch) -> Batch:
    """Return a batch whose only image is a video of two frames of noise."""
    pixels = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    return replace(
        batch, pixels=pixels, tile_counts=torch.tensor([2]), is_video=torch.tensor([True]), times=torch.tensor([0.0, 1.0])
    )


def test_frames_of_a_video_are_pictures_of_their_own() -> None:
    model = tiny_model(replace(RECIPE, video="frames"))
    batch = with_frames(of_own_shapes(model, SIZES[:1]))
    features, counts = model.encode_images(batch)
    alone = model.abstractor(model.encoder(batch.pixels), grid=model.plan.facts.grid(40, 40))
    assert counts == [18]
    torch.testing.assert_close(features, alone.flatten(0, 1))


@pytest.mark.parametrize("part", ["pixel_shuffle", "average_pool"])
def test_an_abstractor_that_does_not_accept_the_joined_grid_is_refused(part: str) -> None:
    parts = replace(TINY, preprocessing={"overlapping_crops": {"margin": 1}}, abstractor={part: {"factor": 4}})
    with pytest.raises(ValueError, match="does not accept 8 x 10 patches, which the preprocessing OverlappingCrops makes"):
        build_model(parts)


@dataclass(frozen=True)
class OneByOne(Linear):
    """An abstractor whose module reads tiles one by one, with their surroundings."""

    def build(self, facts: EncoderFacts, out_width: int, grid: Grid) -> nn.Module:
        """Return the module of `linear`, marked as one that reads surroundings."""
        module: Any = super().build(facts, out_width, grid)
        module.reads_surroundings = True
        return module


def test_an_abstractor_that_reads_tiles_one_by_one_is_refused() -> None:
    parts = replace(
        TINY, preprocessing={"overlapping_crops": {"margin": 1}}, abstractor="tests.train.test_parity_molmo.OneByOne"
    )
    with pytest.raises(ValueError, match="OneByOne reads tiles one by one, but the preprocessing OverlappingCrops joins"):
        build_model(parts)
