"""The perceiver reads all frames of a video together, in their order, and an image like a video of one frame (Flamingo)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.train.parity import Clip, assert_generation_equals_forward, assert_packed_equals_separate, noise_clip, of_media
from tests.train.test_loop_ranks import start
from tests.train.tiny import TINY, randomise, tiny_model
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.surroundings import Surroundings

PERCEIVER = {"latents": 5, "layers": 2, "heads": 2, "head_width": 8, "frames": 4}
JOINED = replace(TINY, abstractor={"perceiver": PERCEIVER}, video="joined_frames")
FLAMINGO = replace(JOINED, fusion={"cross_attention": {"every": 1}})
BOTH = pytest.mark.parametrize("recipe", [JOINED, FLAMINGO], ids=["tokens", "cross_attention"])
IMAGE = np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)
MEDIA: list[np.ndarray | Clip] = [noise_clip(3, 32, 40, seed=1), IMAGE, noise_clip(2, 20, 32, seed=2)]


def features_of(model: VisionLanguageModel, *media: np.ndarray | Clip) -> torch.Tensor:
    """Return the features of images and videos."""
    with torch.no_grad():
        return model.encode_images(of_media(model, media))[0]


def reversed_clip(clip: Clip) -> Clip:
    """Return a video with the frames in reverse order."""
    return Clip(clip.frames[::-1], clip.times)


def test_without_embeddings_of_time_the_order_of_frames_has_no_effect() -> None:
    model = tiny_model(JOINED)
    randomise(model.abstractor, scale=0.6)
    clip = Clip([np.full((32, 32, 3), shade, np.uint8) for shade in (0, 90, 160, 255)], [0.0, 1.0, 2.0, 3.0])
    assert (features_of(model, clip) - features_of(model, reversed_clip(clip))).abs().max() > 0.01
    torch.nn.init.zeros_(model.abstractor.time_embeddings)
    torch.testing.assert_close(features_of(model, clip), features_of(model, reversed_clip(clip)))


def test_a_video_of_one_frame_equals_the_image() -> None:
    model = tiny_model(JOINED)
    torch.testing.assert_close(features_of(model, Clip([IMAGE], [7.0])), features_of(model, IMAGE), rtol=0, atol=0)


def test_without_embeddings_of_time_all_frames_are_read_like_one_large_image() -> None:
    model, plain = tiny_model(JOINED), tiny_model(replace(TINY, abstractor={"perceiver": {**PERCEIVER, "frames": None}}))
    weights = {name: weight for name, weight in model.state_dict().items() if name != "abstractor.time_embeddings"}
    plain.load_state_dict(weights)
    torch.nn.init.zeros_(model.abstractor.time_embeddings)
    patches, none = torch.randn(3, 16, 32), torch.zeros(3, dtype=torch.int64)
    video = Surroundings(none, none, none.float(), none[:1, None][:, :0], model.language.get_input_embeddings(), [(3, True)])
    torch.testing.assert_close(features_of(model, IMAGE), features_of(plain, IMAGE))
    torch.testing.assert_close(model.abstractor(list(patches), video)[0], plain.abstractor(patches.flatten(0, 1)[None])[0])


def test_embeddings_of_time_are_interpolated_for_longer_videos() -> None:
    module = tiny_model(JOINED).abstractor
    with torch.no_grad():
        module.time_embeddings.copy_(torch.arange(4.0)[:, None].expand(4, 32))
        assert module.embeddings(2)[:, 0].tolist() == [0.0, 1.0]
        torch.testing.assert_close(module.embeddings(7)[:, 0], torch.arange(0, 3.1, 0.5))


@BOTH
def test_packed_videos_equal_separate_ones(recipe: ModelRecipe) -> None:
    model = tiny_model(recipe)
    samples = [of_media(model, MEDIA, seed=1), of_media(model, [noise_clip(5, 32, 32, seed=3)], seed=2)]
    assert_packed_equals_separate(model, [*samples, of_media(model, [IMAGE], seed=3)])


def test_with_cross_attention_a_video_is_one_token_and_changes_the_text_after_it() -> None:
    model = tiny_model(FLAMINGO)
    batch = of_media(model, MEDIA)
    assert batch.image_token_counts.tolist() == [1, 1, 1] and batch.tile_counts.tolist() == [3, 1, 2]
    assert model.encode_images(batch)[1] == [5, 5, 5]
    other = replace(batch, pixels=torch.as_tensor(batch.pixels).clone())
    other.pixels[1] = 255 - other.pixels[1]  # the second frame of the first video
    with torch.no_grad():
        moved = (model.logits(batch) - model.logits(other))[0].abs().amax(-1) > 1e-6
    first, second = (batch.input_ids[0] == model.image_token_id).nonzero().flatten().tolist()[:2]
    assert moved.tolist()[:second] == [False] * first + [True] * (second - first)


@BOTH
def test_every_weight_has_a_gradient_in_a_batch_of_images_and_in_one_of_videos(recipe: ModelRecipe) -> None:
    model = tiny_model(recipe).train()
    for media in ([IMAGE], MEDIA[:1], []):
        model.zero_grad()
        one = of_media(model, [IMAGE]) if not media else of_media(model, media)
        model.logits(one).square().mean().backward()
        assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


@BOTH
def test_generation_after_a_video_equals_the_full_forward_pass(recipe: ModelRecipe) -> None:
    model = tiny_model(recipe)
    assert_generation_equals_forward(model, of_media(model, MEDIA, seed=3))


def test_ranks_with_images_only_and_with_videos_only_have_the_gradients_of_both(tmp_path: Path) -> None:
    done = start(2, "tests.train.on_ranks_videos", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["without_gradient"] == [] and found["largest_difference"] < 1e-5 * found["largest"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": "frames"}, "Perceiver reads the frames of a video together. Use the video part `joined_frames`"),
        ({"abstractor": "mlp"}, "JoinedFrames needs an abstractor that reads the frames of a video together"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(replace(JOINED, **change))
