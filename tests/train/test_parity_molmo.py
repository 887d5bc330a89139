"""Molmo 2's image half, with overlapping crops, gives the features and gradients of its class in transformers."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Molmo2Config, Molmo2Model
from transformers.models.molmo2.image_processing_molmo2 import Molmo2ImageProcessor

from tests.train.parity import TEXT, assert_packed_equals_separate, of_own_shapes, randomised, renamed
from tests.train.test_preprocessing import picture
from tests.train.tiny import TINY, tiny_model
from vlmdata_train.abstractors.linear import Linear
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.encoder_facts import EncoderFacts, Grid
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe

VISION = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3, "patch_size": 8}
CROPS = {"overlapping_crops": {"max_crops": 6, "margin": 1, "keep_aspect": False, "antialias": False}}
POOL = {"attention_pool": {"heads": 2, "head_width": 6, "mlp_width": 20}}
TOWER = {"model_type": "siglip_vision_model", **VISION, "image_size": 40, "vision_use_head": False}
RECIPE = ModelRecipe(
    encoder={"hf_vision": {"config": TOWER, "layer": [-1, -2]}}, preprocessing=CROPS, abstractor=POOL,
    language={"hf_causal": {"config": {"model_type": "llama", **TEXT}}},
    writing={"rows": {"row_end": "<im_col>", "start": "<im_start>", "overview_start": "<low_res_im_start>"}},
)  # fmt: skip
SIZES = [(40, 40), (75, 130), (20, 140)]  # height, width
NAMES = {
    "vision_tower.layers.": "encoder.model.encoder.layers.",
    "vision_tower.patch_embedding.": "encoder.model.embeddings.patch_embedding.",
    "vision_tower.positional_embedding": "encoder.model.embeddings.position_embedding.weight",
    "multi_modal_projector.image_pooling_2d.q_proj.": "abstractor.query.",
    "multi_modal_projector.image_pooling_2d.k_proj.": "abstractor.key.",
    "multi_modal_projector.image_pooling_2d.v_proj.": "abstractor.value.",
    "multi_modal_projector.image_pooling_2d.o_proj.": "abstractor.output.",
    "multi_modal_projector.image_projector.gate_proj.": "abstractor.mlp.gate.",
    "multi_modal_projector.image_projector.up_proj.": "abstractor.mlp.up.",
    "multi_modal_projector.image_projector.down_proj.": "abstractor.mlp.down.",
}


def reference() -> Any:
    """Make a Molmo 2 with random weights."""
    config = Molmo2Config(
        vision_config={**VISION, "num_key_value_heads": 3, "head_dim": 8, "image_size": [40, 40]},
        adapter_config={
            "vision_feature_layer": [-1, -2], "hidden_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2,
            "head_dim": 6, "intermediate_size": 20, "text_hidden_size": 32,
        },
        text_config={**TEXT, "head_dim": 8, "vocab_size": 200},
    )  # fmt: skip
    return randomised(Molmo2Model(config))


def image_half(model: Any) -> dict[str, Tensor]:
    """Return the weights of the reference's tower and adapter under our names. Patch embeddings are convolutions here."""
    names = renamed(NAMES)
    parts = ("vision_tower", "multi_modal_projector")
    found = {names(name): weight for name, weight in model.named_parameters() if name.startswith(parts)}
    names_of = [name.replace(".self_attn.o_proj.", ".self_attn.out_proj.") for name in found]
    return dict(zip(names_of, found.values(), strict=True))


def as_convolution(weight: Tensor) -> Tensor:
    """Return the weight of a linear layer over the pixels of a patch (C, row, column, channel) as that of a convolution."""
    return weight.view(24, 8, 8, 3).permute(0, 3, 1, 2)


def copied(theirs: Any) -> VisionLanguageModel:
    """Build our model with the image half of the reference."""
    model = build_model(RECIPE).eval()
    weights = dict(model.named_parameters())
    for name, weight in image_half(theirs).items():
        weights[name].data.copy_(as_convolution(weight) if name.endswith("patch_embedding.weight") else weight)
    left = [name for name in weights if name.startswith(("encoder.", "abstractor.")) and name not in image_half(theirs)]
    assert left == []
    return model


def test_images_of_several_crops_equal_molmo_2_with_gradients() -> None:
    theirs = reference()
    model = copied(theirs)
    batch = of_own_shapes(model, SIZES)
    assert len(set(batch.tile_counts.tolist())) > 1
    process = Molmo2ImageProcessor(
        size={"height": 40, "width": 40}, patch_size=8, overlap_margins=[1, 1], max_crops=6, image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )  # fmt: skip
    images = [picture(*size) for size in SIZES]
    ready = process(images=[Image.fromarray(image) for image in images], return_tensors="pt")
    batch = replace(batch, pixels=torch.cat([torch.as_tensor(model.preprocess(image).pixels) for image in images]))
    features, counts = model.encode_images(batch)
    expected = theirs.get_image_features(
        ready["pixel_values"], ready["image_token_pooling"], ready["image_grids"]
    ).pooler_output  # fmt: skip
    assert counts == [len(one) for one in expected] == batch.image_token_counts.tolist()
    together = torch.cat(expected)
    assert (features - together).abs().max() < 1e-5 * together.abs().max()
    assert together.std() > 0.1
    features.square().mean().backward()
    together.square().mean().backward()
    weights = dict(model.named_parameters())
    largest = max(float(weight.grad.abs().max()) for weight in image_half(theirs).values() if weight.grad is not None)
    for name, weight in image_half(theirs).items():
        assert weight.grad is not None, name
        grad = as_convolution(weight.grad) if name.endswith("patch_embedding.weight") else weight.grad
        mine = weights[name].grad
        assert mine is not None, name
        assert (mine - grad).abs().max() < 1e-5 * max(float(grad.abs().max()), 0.01 * largest), name


def test_packed_samples_with_crops_equal_separate_ones() -> None:
    model = tiny_model(RECIPE)
    assert_packed_equals_separate(model, [of_own_shapes(model, SIZES[:2], 0), of_own_shapes(model, SIZES[2:], 1)])


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
