"""A dataset of conversations about videos, which vlmdata builds, is trained with each video part."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.inputs.tars import document_sample, jpeg, write_tar
from tests.train.runs import MODEL, made_model, tiny_recipe
from tests.train.shards import COLOURS, drawing
from tests.train.test_parity_qwen import TEXT, VISION
from vlmdata import run
from vlmdata.images.header import read_header
from vlmdata_train.data import open_feed
from vlmdata_train.data.document import Video
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop.loop import run_training

pytestmark = pytest.mark.whole

BETWEEN = {"between": {"start": "<img>", "end": "</img>", "frame": "Frame{number}: ", "frame_end": "\n"}}
PERCEIVER = {"perceiver": {"latents": 3, "layers": 1, "heads": 2, "head_width": 8, "frames": 4}}
QWEN = {
    "encoder": {"qwen2_vl": {"config": {**VISION, "hidden_size": 32}}}, "abstractor": "patch_merger",
    "preprocessing": {"smart_size": {"min_pixels": 128, "max_pixels": 512}},
    "positions": {"mrope": {"sections": (1, 1, 2), "tokens_per_second": 2}},
    "language": {"hf_causal": {"config": {"model_type": "qwen2", **TEXT}}}, "writing": {"plain": {"video_token": "<video>"}},
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "frames": {**MODEL, "video": {"frames": {"fps": 1}}, "writing": BETWEEN},
    "pooled_frames": {**MODEL, "preprocessing": "anyres", "video": {"pooled_frames": {"count": 3}}},
    "joined_frames": {**MODEL, "abstractor": PERCEIVER, "fusion": "cross_attention", "video": {"joined_frames": {"fps": 2}}},
    "temporal_patches": {**QWEN, "video": {"temporal_patches": {"fps": 2, "min_pixels": 128, "max_pixels": 512}}},
}
FRAMES = {"frames": 4, "pooled_frames": 3, "joined_frames": 7, "temporal_patches": 6}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build shards of 10 conversations: 8 about a video of 7 frames, 2 a second, and 2 about an image."""
    folder = tmp_path_factory.mktemp("videos")
    samples = []
    for number in range(10):
        colours = [list(COLOURS)[(number + frame) % 4] for frame in range(7 if number < 8 else 1)]
        pictures = [jpeg(drawing(colour, "square", 32 + 8 * (number % 2))) for colour in colours]
        roles = ["user"] * (len(pictures) + 1) + ["assistant"]
        sample = document_sample(f"v{number}", [*pictures, "What colour is last?", colours[-1]], roles)
        facts = json.loads(sample["json"])
        for frame, entry in enumerate(facts["metadata"][: len(pictures)]):
            entry |= {"file": f"{frame}.jpg", **({"time_s": 0.5 * frame} if number < 8 else {})}
        samples.append({**sample, "json": json.dumps(facts).encode()})
    (folder / "in").mkdir()
    write_tar(folder / "in/00000.tar", samples)
    recipe = {
        "source": {"type": "webdataset", "path": str(folder / "in")}, "steps": [{"resize": {"size": 32}}],
        "shards": {"samples": 5, "layout": "documents"},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    run(folder / "recipe.yaml", folder / "out", local=True, workers=1)
    return folder / "out"


@pytest.mark.parametrize("name", MODELS)
def test_a_dataset_with_frames_is_trained_with_exact_lengths(name: str, dataset: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        str(dataset), tmp_path / "run", model=MODELS[name], steps=2, batches={"tokens": 400, "sample_tokens": 400}
    )
    ranks = Ranks(0, 1, torch.device("cpu"))
    model: Any = made_model(recipe, recipe.model, ranks)
    feed = open_feed.feed_of(recipe, model, str(dataset), ranks)
    prompts = {}
    for sample in open_feed.some_samples(feed.reading, str(dataset), 100):
        prompt = feed.reading.prompt(sample)
        prompts[sample["__key__"]] = prompt
        assert feed.reading(as_measured(sample)) == len(prompt.input_ids)
        (item,) = (image.picture for image in prompt.images)
        assert len(item.frames if isinstance(item, Video) else [item]) in (1, FRAMES[name])
    assert len(prompts) == 10
    videos = 0
    for batch, _ in feed:
        assert [int(count) for count in batch.segment_ids[0].bincount()[1:]] == [
            len(prompts.pop(key.split()[1]).input_ids) for key in batch.keys
        ]
        assert (batch.labels >= 0).any()
        videos += int(batch.is_video.sum())
    assert (videos, prompts, feed.skipped) == (8, {}, Counter())
    assert run_training(recipe).steps == 2


def as_measured(sample: dict[str, Any]) -> dict[str, Any]:
    """Return a sample as the loader measures it: sizes in place of images."""
    names = [name for name in sample if name.endswith("jpg")]
    sizes = [read_header(sample[name]).upright_size for name in names]
    return {"__key__": sample["__key__"], "json": sample["json"], "__images__": sizes, "__image_names__": names}
