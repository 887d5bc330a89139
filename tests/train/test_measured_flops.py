"""The measured FLOPs of abstractors and towers equal those that torch counts in a step, also for several images and videos."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from packaging.version import Version
from torch import Tensor, nn

from tests.train.parity import of_own_shapes
from tests.train.test_abstractors import CASES
from tests.train.test_flops import FIXED, FROZEN, LORA, SIGLIP, TWO_TOWERS, measured
from tests.train.test_parity_deepseek import RECIPES as DEEPSEEK_VL
from tests.train.test_parity_qwen import RECIPE as QWEN2_VL
from tests.train.test_several_images import png
from tests.train.test_videos import FRAMES
from tests.train.tiny import pack, sample, tiny_model
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.document import Document, Video
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.loop.abstractor_flops import AbstractorFlops
from vlmdata_train.loop.model_flops import features_of
from vlmdata_train.loop.tower_flops import TowerFlops
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.freezing import apply_parts
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe

BMM_BEFORE_2_14 = ("average_pool", "d_abstractor")
WITH_WEIGHTS = sorted(CASES.keys() - {"identity"})


def recipe_of(name: str) -> ModelRecipe:
    """Return the recipe of a tiny model with this abstractor. The tower makes 4 x 4 patches of 32 channels (two towers: 80)."""
    return replace(TWO_TOWERS if name == "hybrid_mlp" else FIXED, abstractor={name: CASES[name]})


def one_image(model: VisionLanguageModel) -> Batch:
    """Make a batch of one image. With several, torch computes a frozen layer of an expanded input as bmm, like attention."""
    return pack(model, [sample(model, 20, 1, 1)])


def two_samples(model: VisionLanguageModel) -> Batch:
    """Make a batch of two samples with one image and two, and with questions of the same length."""
    return pack(model, [sample(model, 20, 2, 1), sample(model, 10, 1, 2)])


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_the_flops_of_an_abstractor_equal_those_of_torch_in_a_step(name: str) -> None:
    for parts in ({}, {"encoder": FROZEN}):
        model: Any = tiny_model(recipe_of(name)).train()
        apply_parts(model.parts(), parts)
        batch = one_image(model) if name == "instruct_q_former" else two_samples(model)  # it has weights that are not trained
        assert AbstractorFlops(model).of_batch(batch) == measured(model, batch)["abstractor"] > 0


def test_an_abstractor_without_weights_costs_nothing() -> None:
    model: Any = tiny_model(recipe_of("identity"))
    assert AbstractorFlops(model).of_batch(two_samples(model)) == 0


@pytest.mark.parametrize("parts", [{}, {"encoder": FROZEN}], ids=["trained", "frozen"])
@pytest.mark.parametrize("recipe", [DEEPSEEK_VL["two towers"], TWO_TOWERS], ids=["a tile for each tower", "the same tile"])
def test_the_flops_of_several_towers_equal_those_of_torch_in_a_step(recipe: ModelRecipe, parts: dict[str, Any]) -> None:
    model: Any = tiny_model(recipe).train()
    apply_parts(model.parts(), parts)
    batch = of_own_shapes(model, [(64, 64), (30, 50)])
    assert TowerFlops(model).of_batch(batch) == measured(model, batch)["encoder"] > 0


@pytest.mark.parametrize("name", sorted({*WITH_WEIGHTS} - {"linear", "prompt_projection"}))  # these refuse LoRA
def test_the_flops_of_an_abstractor_with_lora_equal_those_of_torch(name: str) -> None:
    if name in BMM_BEFORE_2_14 and Version(torch.__version__) < Version("2.14"):
        pytest.skip("this torch computes a frozen layer of an expanded input as bmm, like attention")
    model: Any = tiny_model(recipe_of(name)).train()
    apply_parts(model.parts(), {"encoder": FROZEN, "abstractor": LORA})
    batch = one_image(model)
    assert AbstractorFlops(model).of_batch(batch) == measured(model, batch)["abstractor"] > 0


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_a_frozen_layer_costs_two_flops_for_each_weight_and_row_of_its_input(name: str) -> None:
    model: Any = tiny_model(recipe_of(name))
    apply_parts(model.parts(), dict.fromkeys(("encoder", "abstractor", "language"), FROZEN))
    batch, found = two_samples(model), []
    flops = AbstractorFlops(model).of_batch(batch)

    def count(layer: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        found.append(2 * output.numel() * layer.weight[0].numel())

    for layer in model.abstractor.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.register_forward_hook(count)
    model.encode_images(batch)
    assert flops == sum(found) > 0


def test_keys_and_values_of_a_perceiver_count_for_all_patches() -> None:
    model: Any = tiny_model(replace(FIXED, abstractor={"perceiver": CASES["perceiver"]}))
    apply_parts(model.parts(), {"encoder": FROZEN})
    patches, latents, inner = 16, 5, 2 * 4  # inner: two heads of width 4
    a_layer = 2 * (patches + latents) * inner * 32 + 2 * latents * inner * 32 + 2 * latents * 32 * (4 * 32)
    assert AbstractorFlops(model).of_batch(two_samples(model)) == 6 * 2 * a_layer * 3  # two layers, three images


def test_the_number_of_patches_changes_the_flops_of_a_resampler() -> None:
    model: Any = tiny_model(replace(FIXED, abstractor={"query_resampler": CASES["query_resampler"]}))
    apply_parts(model.parts(), {"encoder": FROZEN, "abstractor": FROZEN})
    flops = AbstractorFlops(model)
    small, large = (replace(two_samples(model), pixels=torch.zeros(3, 3, side, side)) for side in (32, 64))
    keys_and_values = 2 * 2 * 32 * 32  # FLOPs for a patch; the tower's width is the model's, so nothing else reads patches
    assert flops.of_batch(large) - flops.of_batch(small) == 3 * (64 - 16) * keys_and_values


VIDEO = Video(tuple(FRAMES[:5]), (0.0, 0.5, 1.0, 1.5, 2.0))
ONE_VISION = replace(
    FIXED, preprocessing={"anyres": {"tiles": ((1, 2), (2, 1)), "several": "pad"}}, video={"pooled_frames": {"count": 3}},
)  # fmt: skip
JOINED = replace(FIXED, abstractor={"perceiver": {**CASES["perceiver"], "frames": 4}}, video="joined_frames")
LARGE = {"hf_vision": {"config": {**SIGLIP, "image_size": 64}}}
MEDIA: dict[str, ModelRecipe] = {
    "OneVision": ONE_VISION,
    "OneVision, cross-attention": replace(ONE_VISION, fusion={"cross_attention": {"features": "language"}}),
    "joined frames": JOINED,
    "joined frames, cross-attention": replace(JOINED, fusion={"cross_attention": {"every": 1}}),
    "temporal patches": replace(QWEN2_VL, video={"temporal_patches": {"min_pixels": 3136, "max_pixels": 6272}}),
    "question and frames": replace(FIXED, abstractor={"context_tokens": {"side": 1}}, video="frames"),
    "earlier images": replace(FIXED, abstractor={"prompt_projection": CASES["prompt_projection"]}, video="frames"),
    "joined crops": replace(
        FIXED, encoder=LARGE, preprocessing={"overlapping_crops": {"margin": 1}}, video="frames",
        abstractor={"attention_pool": {**CASES["attention_pool"], "layers": 1}}),
}  # fmt: skip


def read(model: VisionLanguageModel, media: list[Any]) -> Batch:
    """Return the batch of one sample with these images and videos, as the loader builds it."""
    document = Document(["What?", *media, "It turns."], ["user"] * (1 + len(media)) + ["assistant"])
    return build_batch([Ready(prompter_of(model).chat(document), "", "")], model.plan, 0, packed_tokens=None, broken=Counter())


@pytest.mark.parametrize("recipe", MEDIA.values(), ids=MEDIA)
def test_the_flops_of_several_images_and_a_video_equal_those_of_torch(recipe: ModelRecipe) -> None:
    model: Any = tiny_model(recipe).train()
    flops = AbstractorFlops(model)
    for media in ([png(120, 77)], [png(120, 77), png(40, 60)], [VIDEO], [png(120, 77), VIDEO, png(40, 60)]):
        batch = read(model, media)
        assert features_of(batch, model.plan) == sum(model.encode_images(batch)[1])
        assert flops.of_batch(batch) == measured(model, batch)["abstractor"]
