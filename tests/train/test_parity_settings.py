"""A parity test fails if the settings of the two sides differ, even if neither side names them."""

from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    VISION,
    answers_of,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_squares,
    randomised,
)
from vlmdata_train.convert.families.llava import Llava
from vlmdata_train.model.model_recipe import ModelRecipe

RECIPE = ModelRecipe(
    encoder={"hf_vision": {"config": {"model_type": "clip_vision_model", **VISION}}}, preprocessing="pad", abstractor="mlp",
    language={"hf_causal": {"config": {"model_type": "llama", **TEXT}}},
)  # fmt: skip


def reference(text: dict[str, Any], vision: dict[str, Any]) -> Any:
    """Make a LLaVA with other settings than ours."""
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, **vision), text_config=LlamaConfig(**TEXT, **text), image_token_id=IMAGE_ID,
        image_seq_length=16,
    )  # fmt: skip
    return randomised(LlavaForConditionalGeneration(config))


@pytest.mark.parametrize(
    ("text", "vision", "message"),
    [
        ({"rms_norm_eps": 1e-5}, {}, r"language: .*'rms_norm_eps': \(1e-06, 1e-05\)"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, {}, r"language: .*'rope_parameters.rope_theta'"),
        ({"hidden_act": "gelu"}, {}, r"language: .*'hidden_act': \('silu', 'gelu'\)"),
        ({}, {"layer_norm_eps": 1e-6}, r"encoder: .*'layer_norm_eps'"),
        ({}, {"hidden_act": "gelu"}, r"encoder: .*'hidden_act'"),
    ],
)
def test_a_different_setting_fails_a_parity_test_and_is_named(text: dict, vision: dict, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        copy_weights(reference(text, vision), RECIPE, Llava().our_name)


def test_a_norm_with_another_epsilon_fails_a_parity_test() -> None:
    other = reference({}, {})
    other.model.language_model.norm.variance_epsilon = 1e-5
    with pytest.raises(AssertionError, match=r"model\.language_model\.norm\.weight: 1e-06 and the reference's 1e-05"):
        copy_weights(other, RECIPE, Llava().our_name)


def test_logits_of_norms_with_another_epsilon_are_not_the_same() -> None:
    """This happened with Qwen2-VL, whose logits were equal to 1e-4 but not the same."""
    other = reference({}, {})
    model, batch = copy_weights(other, RECIPE, Llava().our_name), of_squares([16, 16])
    assert_same_logits_and_images_matter(model, batch, answers_of(other, batch))
    for norm in other.model.language_model.modules():
        if hasattr(norm, "variance_epsilon"):
            norm.variance_epsilon = 1e-5
    with torch.no_grad():
        assert (model.logits(batch) - answers_of(other, batch)(batch.pixels)).abs().max() < 1e-4
    with pytest.raises(AssertionError):
        assert_same_logits_and_images_matter(model, batch, answers_of(other, batch))
