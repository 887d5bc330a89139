"""Frames of a video are written with the texts of InternVL, SmolVLM and Qwen3-VL, and give the logits of their classes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import (
    Idefics3ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    Qwen2VLImageProcessorPil,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm
from transformers.video_utils import VideoMetadata

from tests.train.parity import (
    IMAGE_ID,
    VISION,
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
from tests.train.parity import TEXT as SMALL_TEXT
from tests.train.test_parity_video_qwen import recipe_of
from tests.train.tiny import TINY
from vlmdata_train.convert.families.internvl import InternVL
from vlmdata_train.convert.families.smolvlm import SmolVlm
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.parts import make_part
from vlmdata_train.model.pixels import normalise
from vlmdata_train.model.video_text import in_words, video_text
from vlmdata_train.model.written import Place

TEXT = {**SMALL_TEXT, "vocab_size": 310}
INTERN_TEXT = {"model_type": "qwen2", **TEXT}
INTERN_TOWER = {
    **VISION, "image_size": [32, 32], "patch_size": [8, 8], "layer_scale_init_value": 0.1,
    "use_absolute_position_embeddings": True,
}  # fmt: skip
INTERN = ModelRecipe(
    encoder={"hf_vision": {"config": {"model_type": "internvl_vision", **INTERN_TOWER}, "layer": -1, "norm": True}},
    preprocessing="dynamic_tiles", language={"hf_causal": {"config": INTERN_TEXT}},
    abstractor={"pixel_shuffle": {"factor": 2, "layers": 2, "norm": True}}, video="frames",
    writing={"between": {"start": "<img>", "end": "</img>", "frame": "Frame{number}: ", "frame_end": "\n"}},
)  # fmt: skip
SMOL_TEXT = {
    "video_start": processing_smolvlm.DEFAULT_VIDEO_INTRO.format(frame_count="{frames_in_words}", video_duration="{duration}"),
    "frame": processing_smolvlm.FRAME_TIMESTAMP_MESSAGE.format(timestamp="{clock}"),
    "video_end": processing_smolvlm.DEFAULT_MEDIA_OUTTRO,
}
SMOL = ModelRecipe(
    encoder={"hf_vision": {
        "config": {"model_type": "siglip_vision_model", **VISION, "vision_use_head": False}, "layer": -1, "norm": True,
    }},
    preprocessing={"square_tiles": {"longest": 32}}, abstractor={"pixel_shuffle": {"factor": 2, "layers": 1, "bias": False}},
    language={"hf_causal": {"config": {"model_type": "llama", **TEXT}}}, writing={"tile_grid": SMOL_TEXT}, video="frames",
)  # fmt: skip
CLIP = Clip(noise_clip(4, 32, 32).frames, [0.5, 30.0, 62.7, 3725.0])


def ids_of(model: VisionLanguageModel, clip: Clip, text: str) -> list[int]:
    """Return the ids of a video and a text after it."""
    height, width = clip.frames[0].shape[:2]
    own = model.tokenizer.convert_ids_to_tokens(model.video_token_id or model.image_token_id)
    pieces = model.plan.write_video(clip.times, width, height, Place(0, "", text))
    written = "".join(piece if isinstance(piece, str) else own * piece.tokens for piece in pieces)
    return model.tokenizer(written + text, add_special_tokens=False)["input_ids"]


def processed(processor: Any, clip: Clip, text: str) -> list[int]:
    """Return the ids that a processor of transformers makes of a video with these times, and a text after it."""
    frames = torch.from_numpy(np.stack(clip.frames)).permute(0, 3, 1, 2)
    numbers = [round(time * 10) for time in clip.times]
    metadata = VideoMetadata(total_num_frames=numbers[-1] + 1, fps=10, frames_indices=numbers)
    made = processor(
        text=["<video>" + text], videos=[frames], video_metadata=[metadata], do_sample_frames=False, add_special_tokens=False,
        return_tensors="pt",
    )  # fmt: skip
    return made["input_ids"][0].tolist()


def test_internvl_writes_a_line_for_each_frame() -> None:
    model = build_model(INTERN)
    tokenizer = model.tokenizer
    names = {"start_image": "<img>", "end_image": "</img>", "context_image": "<image>", "video": "<video>"}
    tokenizer.add_tokens(["<video>"], special_tokens=True)
    for name, token in names.items():
        setattr(tokenizer, f"{name}_token", token)
        setattr(tokenizer, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))
    processor = InternVLProcessor(GotOcr2ImageProcessorPil(), tokenizer, InternVLVideoProcessor(), image_seq_length=4)
    assert ids_of(model, CLIP, "\nWhat?") == processed(processor, CLIP, "\nWhat?")


def test_smolvlm_writes_an_introduction_and_the_time_of_each_frame(monkeypatch: Any) -> None:
    if find_spec("num2words") is None:
        monkeypatch.setattr(processing_smolvlm, "num2words", in_words)  # compared with typed words below
    model = build_model(SMOL)
    model.tokenizer.add_tokens(["<video>"], special_tokens=True)
    processor = SmolVLMProcessor(
        Idefics3ImageProcessorPil(), model.tokenizer, SmolVLMVideoProcessor(max_image_size={"longest_edge": 32}), 4
    )
    assert ids_of(model, CLIP, "What?") == processed(processor, CLIP, "What?")


def test_qwen3_vl_writes_the_time_of_each_pair_of_frames() -> None:
    model = build_model(recipe_of("Qwen3-VL"))
    names = {"image": "<image>", "video": "<video>", "vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    for name, token in names.items():
        setattr(model.tokenizer, f"{name}_token", token)
        setattr(model.tokenizer, f"{name}_token_id", model.tokenizer.convert_tokens_to_ids(token))
    size = {"shortest_edge": 128, "longest_edge": 6000}
    video: Any = Qwen3VLVideoProcessor(patch_size=4, size=size, cap_pixels_per_frame=False)
    processor = Qwen3VLProcessor(Qwen2VLImageProcessorPil(), model.tokenizer, video)
    clip = Clip(noise_clip(5, 30, 22).frames, [0.0, 0.5, 1.2, 1.9, 2.4])
    assert ids_of(model, clip, "What?") == processed(processor, clip, "What?")


def test_internvl_equals_transformers_on_images_and_videos() -> None:
    config = InternVLConfig(
        vision_config=INTERN_TOWER, text_config=INTERN_TEXT, image_token_id=IMAGE_ID, image_seq_length=4,
        tie_word_embeddings=False,
    )  # fmt: skip
    assert_equal(InternVLForConditionalGeneration(config), INTERN, InternVL().our_name, lambda pixels: pixels)


def test_smolvlm_equals_transformers_on_images_and_videos() -> None:
    config = SmolVLMConfig(
        vision_config=VISION, text_config={"model_type": "llama", **TEXT}, image_token_id=IMAGE_ID, scale_factor=2,
        pad_token_id=0,
    )  # fmt: skip
    assert_equal(SmolVLMForConditionalGeneration(config), SMOL, SmolVlm().our_name, lambda pixels: pixels[None])


def assert_equal(reference: Any, recipe: ModelRecipe, names: Callable[[str], Any], shaped: Any) -> None:
    """Compare logits and gradients for a sample with two videos of different lengths and an image.

    Also compare packed and separate samples, and generation with full forward passes."""
    model = copy_weights(randomised(reference), recipe, names)
    image = np.random.default_rng(4).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    batch = of_media(model, [noise_clip(3, 32, 40, seed=1), image, noise_clip(2, 20, 32, seed=2)])
    assert batch.tile_counts.tolist() == [3, 1, 2]
    assert_packed_equals_separate(model, [batch, of_media(model, [noise_clip(4, 16, 16)], seed=1)])
    assert_generation_equals_forward(model, batch)
    facts = model.plan.facts
    batch = replace(batch, pixels=normalise(batch.pixels, facts.mean, facts.std, torch.float32))

    def theirs(pixels: torch.Tensor) -> torch.Tensor:
        return reference(input_ids=batch.input_ids, pixel_values=shaped(pixels)).logits

    assert_same_logits_and_images_matter(model, batch, theirs)
    for logits in (model.logits(batch), theirs(batch.pixels)):
        logits.square().mean().backward()
    assert_same_gradients(model, reference, names)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"), (1, "one"), (12, "twelve"), (20, "twenty"), (21, "twenty-one"), (64, "sixty-four"), (100, "one hundred"),
        (101, "one hundred and one"), (230, "two hundred and thirty"), (999, "nine hundred and ninety-nine"),
    ],
)  # fmt: skip
def test_numbers_of_frames_are_written_in_words(number: int, words: str) -> None:
    assert in_words(number) == words


def test_words_equal_those_of_num2words() -> None:
    words = pytest.importorskip("num2words").num2words
    assert [in_words(number) for number in range(1000)] == [words(number) for number in range(1000)]


def test_values_of_a_video_replace_names_in_braces() -> None:
    template = "{frames}|{frames_in_words}|{duration}|{number}|{seconds}|{clock}"
    assert video_text(template, [0.04, 61.26, 3725.9], 1) == "3|three|1:02:05|2|61.3|01:01"


@pytest.mark.parametrize(
    "entry", [{"between": {"start": "<a>", "end": "<b>", "frame": "{time}"}}, {"tile_grid": {"video_start": "{time}"}}]
)
def test_an_unknown_name_in_braces_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\{time\} is unknown. Use \{frames\}, "):
        make_part("writing", entry)


def test_a_video_without_a_text_for_frames_is_written_like_an_image() -> None:
    recipe = replace(TINY, video="frames", writing={"between": {"start": "<img>", "end": "</img>"}})
    pieces = build_model(recipe).plan.write_video([0.0, 1.0], 32, 32, Place(0, "<img>", ""))
    assert [piece if isinstance(piece, str) else piece.tokens for piece in pieces] == [32, "</img>"]


SECTION = (Path(__file__).parents[2] / "docs/models.md").read_text().split("## Videos\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("block", re.findall("```yaml\n# (.*?)```", SECTION, re.S), ids=lambda block: block.split("\n")[0][:12])
def test_the_examples_of_the_documentation_can_be_run(block: str) -> None:
    parts = yaml.safe_load(block.partition("\n")[2])
    family = "Qwen3-VL" if block.startswith("Qwen3") else "Qwen2.5-VL"
    base = recipe_of(family) if "temporal_patches" in parts["video"] else TINY
    model = build_model(replace(base, language=with_more_tokens(base.language), **parts)).eval()
    batch = of_media(model, [noise_clip(6, 32, 32)])
    with torch.no_grad():
        assert model.logits(batch).isfinite().all()


def with_more_tokens(language: Any) -> Any:
    """Return the entry of a language model with a vocabulary for all literal tokens."""
    return {"hf_causal": {"config": {**language["hf_causal"]["config"], "vocab_size": 330}}}
