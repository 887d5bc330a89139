"""LLaVA-OneVision with pooled frames gives the logits and gradients of its class in transformers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, SiglipVisionConfig

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    Clip,
    assert_generation_equals_forward,
    assert_packed_equals_separate,
    assert_same_gradients,
    assert_same_logits_and_images_matter,
    copy_weights,
    noise_clip,
    of_media,
    randomised,
)
from tests.train.test_parity_llava import LLAMA, PINPOINTS, TOWER
from tests.train.tiny import randomise
from vlmdata_train.convert.families.llava import Llava
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.model import build_model, load_tokenizer
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.pixels import normalise

VISION = {**TOWER, "image_size": 40, "vision_use_head": False}  # 5 x 5 patches, so that scaling rounds up
POINTS = [[40 * (side // 32) for side in point] for point in PINPOINTS]
RECIPE = ModelRecipe(
    encoder={"hf_vision": {"config": {"model_type": "siglip_vision_model", **VISION}}}, abstractor="mlp",
    preprocessing={"anyres": {"tiles": [(rows // 40, columns // 40) for rows, columns in POINTS], "max_tiles": 9}},
    language=LLAMA, writing={"plain": {"video_token": "<video>"}}, video="pooled_frames",
)  # fmt: skip
IMAGE = np.random.default_rng(5).integers(0, 256, (40, 100, 3), dtype=np.uint8)
MEDIA: list[np.ndarray | Clip] = [noise_clip(3, 40, 40, seed=1), IMAGE, noise_clip(2, 30, 60, seed=2)]


def theirs_of(reference: Any, model: Any, batch: Batch, pixels: Tensor) -> Tensor:
    """Return the reference's logits. Its class takes only videos of one length, so this joins the features of single videos."""
    core, found = reference.model, {False: [], True: []}
    images = zip(batch.is_video.tolist(), pixels.split(batch.tile_counts.tolist()), batch.image_sizes, strict=True)
    for is_video, own, size in images:
        if is_video:
            made = core.get_video_features(own[None])
        else:
            made = core.get_image_features(own[None], image_sizes=size[None], batch_num_images=torch.tensor([1]))
        found[is_video].append(made.pooler_output[0])
    embeddings = core.get_input_embeddings()(batch.input_ids)
    for is_video, token in ((False, model.image_token_id), (True, model.video_token_id)):
        embeddings = embeddings.masked_scatter((batch.input_ids == token)[..., None], torch.cat(found[is_video]))
    return reference.lm_head(core.language_model(inputs_embeds=embeddings).last_hidden_state)


def test_images_and_videos_equal_transformers() -> None:
    video = load_tokenizer(RECIPE).convert_tokens_to_ids("<video>")
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION), text_config=LlamaConfig(**TEXT), image_token_id=IMAGE_ID,
        image_grid_pinpoints=POINTS, vision_feature_layer=-2, vision_feature_select_strategy="full", video_token_id=video,
        tie_word_embeddings=False,
    )  # fmt: skip
    reference: Any = randomised(LlavaOnevisionForConditionalGeneration(config))
    model = copy_weights(reference, RECIPE, Llava().our_name)
    batch = of_media(model, MEDIA)
    assert batch.image_token_counts.tolist()[::2] == [3 * 9 + 1, 2 * 9 + 1]
    batch = replace(batch, pixels=normalise(torch.as_tensor(batch.pixels), (0.5,) * 3, (0.5,) * 3, torch.float32))
    assert_same_logits_and_images_matter(model, batch, lambda pixels: theirs_of(reference, model, batch, pixels))
    for logits in (model.logits(batch), theirs_of(reference, model, batch, torch.as_tensor(batch.pixels))):
        logits.square().mean().backward()
    assert_same_gradients(model, reference, Llava().our_name)
    alone = of_media(model, MEDIA[:1])
    frames = normalise(torch.as_tensor(alone.pixels), (0.5,) * 3, (0.5,) * 3, torch.float32)
    whole = reference(input_ids=alone.input_ids, pixel_values_videos=frames[None]).logits
    ours = model.logits(replace(alone, pixels=frames))
    assert (ours - whole).abs().max() < 1e-5 * whole.abs().max()


def test_packed_videos_equal_separate_ones() -> None:
    model = build_model(RECIPE).eval()
    randomise(model)
    samples = [of_media(model, MEDIA, seed=1), of_media(model, MEDIA[:1], seed=2), of_media(model, [IMAGE], seed=3)]
    assert_packed_equals_separate(model, samples)


def test_generation_after_a_video_equals_the_full_forward_pass() -> None:
    model = build_model(RECIPE).eval()
    randomise(model)
    assert_generation_equals_forward(model, of_media(model, MEDIA, seed=3))


def test_27_x_27_features_of_a_frame_become_14_x_14() -> None:
    tower = {"model_type": "siglip_vision_model", **VISION, "image_size": 216}
    recipe = replace(RECIPE, encoder={"hf_vision": {"config": tower}})
    regions = build_model(recipe).plan.video.regions([0.0, 1.0], 300, 200, build_model(recipe).plan)
    assert [region.tokens for region in regions] == [14 * 14, 14 * 14 + 1]


def test_every_weight_has_a_gradient_in_a_batch_of_images_and_in_one_of_videos() -> None:
    model = build_model(RECIPE).train()
    for media in (MEDIA[:1], [IMAGE]):
        model.zero_grad()
        model.logits(of_media(model, media)).square().mean().backward()
        assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
        assert model.arrangement is not None and model.arrangement.get_parameter("newline").grad.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocessing": "resize"}, "pooled_frames uses the newline of `anyres`"),
        ({"abstractor": "perceiver", "preprocessing": "resize", "video": {"pooled_frames": {"newline": False}}}, "square grid"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(replace(RECIPE, **change))
