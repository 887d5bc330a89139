"""Idefics (Flamingo), Idefics3 and InternVL give the logits of their classes in transformers with the same weights."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    IdeficsConfig,
    IdeficsForVisionText2Text,
    InternVLConfig,
    InternVLForConditionalGeneration,
)
from transformers.models.idefics.processing_idefics import (
    image_attention_mask_for_packed_input_ids,
    incremental_to_binary_attention_mask,
)

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    VISION,
    answers_of,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_squares,
    one_row,
    randomised,
)
from vlmdata_train.convert.families.idefics import Idefics
from vlmdata_train.convert.families.idefics3 import Idefics3
from vlmdata_train.convert.families.internvl import InternVL
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe

LLAMA = {"hf_causal": {"config": {"model_type": "llama", **TEXT}}}


def test_idefics3_equals_transformers() -> None:
    config = Idefics3Config(
        vision_config=VISION, text_config={"model_type": "llama", **TEXT}, image_token_id=IMAGE_ID, scale_factor=2,
        pad_token_id=0,
    )  # fmt: skip
    reference = randomised(Idefics3ForConditionalGeneration(config))
    tower = {"model_type": "siglip_vision_model", **VISION, "vision_use_head": False}
    recipe = ModelRecipe(
        encoder={"hf_vision": {"config": tower, "layer": -1, "norm": True}},
        abstractor={"pixel_shuffle": {"factor": 2, "layers": 1, "bias": False}}, language=LLAMA,
    )  # fmt: skip
    model = copy_weights(reference, recipe, Idefics3().our_name)
    batch = of_squares([4, 8], [1, 2])
    answers = answers_of(reference, batch)
    assert_same_logits_and_images_matter(model, batch, lambda pixels: answers(pixels[None]))


def test_internvl_equals_transformers() -> None:
    vision = {
        **VISION, "image_size": [32, 32], "patch_size": [8, 8], "layer_scale_init_value": 0.1,
        "use_absolute_position_embeddings": True,
    }  # fmt: skip
    text = {"model_type": "qwen2", **TEXT}
    config = InternVLConfig(vision_config=vision, text_config=text, image_token_id=IMAGE_ID, image_seq_length=4)
    reference = randomised(InternVLForConditionalGeneration(config))
    recipe = ModelRecipe(
        encoder={"hf_vision": {"config": {"model_type": "internvl_vision", **vision}, "layer": -1, "norm": True}},
        preprocessing="dynamic_tiles", language={"hf_causal": {"config": text}},
        abstractor={"pixel_shuffle": {"factor": 2, "layers": 2, "norm": True}},
    )  # fmt: skip
    model = copy_weights(reference, recipe, InternVL().our_name)
    tiles = [model.plan.preprocessing.tiles_of(width, 32, model.plan.facts) for width in (64, 32)]
    assert tiles == [3, 1]
    batch = of_squares([12, 4], tiles)
    assert_same_logits_and_images_matter(model, batch, answers_of(reference, batch))


def idefics(gates: str, every: int) -> tuple[torch.nn.Module, ModelRecipe]:
    """Make a reference of Idefics and our recipe for it."""
    text = {**TEXT, "num_key_value_heads": 4, "num_hidden_layers": 4}
    vision = {"embed_dim": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    perceiver = {"resampler_n_latents": 5, "resampler_depth": 2, "resampler_n_heads": 2, "resampler_head_dim": 8,
                 "qk_layer_norms_perceiver": True, "use_resampler": True}  # fmt: skip
    config = IdeficsConfig(
        **{name: value for name, value in text.items() if name != "num_key_value_heads"}, vision_config=vision,
        perceiver_config=perceiver, use_resampler=True, cross_layer_interval=every, qk_layer_norms=True,
        alpha_type="vector" if gates == "vector" else "float",
    )  # fmt: skip
    tower = {**vision, "model_type": "clip_vision_model", "hidden_size": 32, "hidden_act": "gelu"}
    del tower["embed_dim"]
    recipe = ModelRecipe(
        encoder={"hf_vision": {"config": tower, "layer": -1, "tokens": "all"}},
        abstractor={"perceiver": {"latents": 5, "layers": 2, "heads": 2, "head_width": 8, "qk_norm": True}},
        fusion={"cross_attention": {"every": every, "gates": gates, "qk_norm": True, "mlp_width": 48}},
        language={"hf_causal": {"config": {"model_type": "llama", **text, "rms_norm_eps": 1e-6}}},
    )  # fmt: skip
    return randomised(IdeficsForVisionText2Text(config)), recipe


def with_runs(lengths: list[int]) -> Batch:
    """Make a batch of one sample: text, then for each length a run of that many images with text after it."""
    images, ids = sum(lengths), [5, 6, 7]
    for number, length in enumerate(lengths):
        ids = [*ids, *[IMAGE_ID] * length, *range(20 + number, 24 + number)]
    pixels = torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return one_row(ids, pixels, [1] * images, [1] * images, [(32, 32)] * images)


def latest_alone(batch: Batch, model: VisionLanguageModel) -> torch.Tensor:
    """Return which images each token reads, (1, T, I), computed by transformers' own code, where a token reads only the
    latest image."""
    numbers, _ = image_attention_mask_for_packed_input_ids(batch.input_ids, model.tokenizer, "pt")
    return incremental_to_binary_attention_mask(numbers, "pt", num_classes=len(batch.pixels))


def whole_run(batch: Batch, model: VisionLanguageModel) -> torch.Tensor:
    """Return which images each token reads, (1, T, I), if it also reads the earlier images of the latest run."""
    latest, before = latest_alone(batch, model)[0], torch.zeros(len(batch.pixels), dtype=torch.int64)
    rows, was_image = [], False
    for is_image, own in zip((batch.input_ids[0] == IMAGE_ID).tolist(), latest, strict=True):
        before = (before + own if was_image else own) if is_image else before
        was_image = is_image
        rows.append(before)
    return torch.stack(rows)[None]


@pytest.mark.parametrize(("gates", "every"), [("vector", 1), ("scalar", 2)])
@pytest.mark.parametrize(("runs", "read"), [("latest", latest_alone), ("whole", whole_run)])
@pytest.mark.parametrize("lengths", [[1, 1], [2], [3, 1, 2]], ids=str)
def test_idefics_with_runs_of_images_equals_transformers(
    lengths: list[int], runs: str, read: Any, gates: str, every: int
) -> None:
    reference, recipe = idefics(gates, every)
    ((name, options),) = recipe.fusion.items()
    model = copy_weights(reference, replace(recipe, fusion={name: {**options, "runs": runs}}), Idefics().our_name)
    batch = with_runs(lengths)
    answers = answers_of(reference, batch, image_attention_mask=read(batch, model))
    assert_same_logits_and_images_matter(model, batch, lambda pixels: answers(pixels[None]))


def test_text_after_a_run_reads_more_images_than_in_the_code_of_idefics() -> None:
    """The two masks above give different results, so the comparison can fail."""
    reference, recipe = idefics("vector", 1)
    model = copy_weights(reference, recipe, Idefics().our_name)
    batch = with_runs([1, 2])
    answers = answers_of(reference, batch, image_attention_mask=latest_alone(batch, model))
    with torch.no_grad():
        moved = (model.logits(batch) - answers(batch.pixels[None])).abs().amax(-1)[0] > 1e-3
    second = batch.input_ids[0].eq(IMAGE_ID).nonzero()[2].item()  # the second image of the run
    assert moved.tolist() == [place >= second for place in range(len(moved))]
