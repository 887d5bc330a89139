"""A published model reads videos as its processor says, and an export gives the same ids and logits for a video."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

from tests.train.published import write_published
from tests.train.test_published import assert_same_answers, loaded
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.convert.save_published import save_published
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.document import Video
from vlmdata_train.data.marks import VIDEO_MARK
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.model import VisionLanguageModel

pytestmark = pytest.mark.whole

# family: entries of its video processor, the part that they give, and a size of frames that are not resized
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, int]]] = {
    "Qwen2-VL": ({"fps": 2.0, "max_frames": 12}, {"fps": 2.0, "max_frames": 12, "multiple": 2, "spacing": "starts"}, (32, 24)),
    "Qwen2.5-VL": ({"num_frames": 6, "fps": None}, {"count": 6, "fps": None, "spacing": "starts"}, (24, 40)),
    "Qwen3-VL": ({"fps": 1.0, "min_frames": 2}, {"fps": 1.0, "min_frames": 2, "multiple": 1, "spacing": "ends"}, (16, 8)),
    "LLaVA-OneVision": ({"num_frames": 8}, {"count": 8, "spacing": "starts"}, (16, 16)),
    "InternVL": ({"num_frames": 4}, {"count": 4, "spacing": "middles"}, (16, 16)),
    "SmolVLM": ({"fps": 1.0, "num_frames": 9}, {"fps": 1.0, "max_frames": 9, "spacing": "ends_down"}, (48, 48)),
}
# likewise, for the limit of pixels that qwen-vl-utils has
CAPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Qwen2-VL": ({"max_video_tokens": 21}, {"max_total": 1209, "max_pixels": 1024, "limits": "frame"}),  # 0.9 of 21 * 8 * 8
    "Qwen3-VL": ({"max_video_tokens": 3}, {"max_frame": 192, "max_pixels": 1024, "limits": "video"}),
}
TIMES = [0.0, 0.5, 1.0, 1.5]


def published(family: str, folder: Path, **entries: Any) -> Path:
    """Write a model whose video processor has the entries of its case, and these."""
    start = write_published(family, folder)
    file = start / "processor_config.json"
    facts = json.loads(file.read_text())
    facts["video_processor"] |= {**CASES[family][0], "do_sample_frames": True, **entries}
    file.write_text(json.dumps(facts))
    return start


def frames_of(size: tuple[int, int]) -> np.ndarray:
    """Return frames of noise for TIMES."""
    return np.random.default_rng(3).integers(0, 256, (len(TIMES), *size, 3), dtype=np.uint8)


def png(frame: np.ndarray) -> bytes:
    """Return a frame, encoded without loss."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()


def batch_of(model: VisionLanguageModel, frames: np.ndarray) -> Batch:
    """Return our batch of a question about a video."""
    video = Video(tuple(map(png, frames)), tuple(TIMES))
    prompt = prompter_of(model).question([{"role": "user", "content": f"{VIDEO_MARK}\nWhat is it?"}], [video])
    return build_batch([Ready(prompt, "a", "k")], model.plan, 0, packed_tokens=None, broken=Counter())


def inputs_of(folder: Path, frames: np.ndarray) -> dict[str, torch.Tensor]:
    """Return the inputs of the same question from the processor, without a choice among the frames."""
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "video"}, {"type": "text", "text": "What is it?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True,
        chat_template=processor.chat_template,  # SmolVLM's processor would take a template of its own for videos
    )  # fmt: skip
    metadata = VideoMetadata(total_num_frames=20, fps=10, frames_indices=[round(10 * time) for time in TIMES])
    return processor(
        text=[text], videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)], video_metadata=[metadata], do_sample_frames=False,
        return_tensors="pt",
    )  # fmt: skip


@pytest.mark.parametrize("family", CASES)
def test_the_video_part_has_the_settings_of_the_processor_and_an_export_keeps_them(family: str, tmp_path: Path) -> None:
    start = published(family, tmp_path / "start")
    model = loaded(start)
    expected = CASES[family][1]
    assert {name: getattr(model.plan.video, name) for name in expected} == expected
    save_published(model, tmp_path / "export")
    assert model_of(str(tmp_path / "export")).video == model_of(str(start)).video
    before, after = (AutoProcessor.from_pretrained(folder).video_processor for folder in (start, tmp_path / "export"))
    metadata = VideoMetadata(total_num_frames=300, fps=30, duration=10.0)
    assert before.do_sample_frames and after.do_sample_frames
    chosen = [list(map(int, one.sample_frames(metadata=metadata))) for one in (before, after)]
    assert chosen[0] == chosen[1] == model.plan.video.choose([number / 30 for number in range(300)])


@pytest.mark.parametrize("family", CAPS)
def test_the_second_limit_of_pixels_is_kept_and_gives_frames_of_the_same_size(family: str, tmp_path: Path) -> None:
    entries, expected = CAPS[family]
    start = published(family, tmp_path / "start", **entries, cap_pixels_per_frame=True)
    model = loaded(start)
    assert {name: getattr(model.plan.video, name) for name in expected} == expected
    save_published(model, tmp_path / "export")
    assert model_of(str(tmp_path / "export")).video == model_of(str(start)).video
    frames = frames_of((60, 50))
    batch, inputs = batch_of(model, frames), inputs_of(tmp_path / "export", frames)
    assert inputs["input_ids"].tolist() == batch.input_ids.tolist()
    without = batch_of(loaded(published(family, tmp_path / "uncapped")), frames)
    assert without.input_ids.shape[1] > batch.input_ids.shape[1]


@pytest.mark.parametrize("family", ["Qwen2-VL", "LLaVA-OneVision", "InternVL", "SmolVLM"])
def test_a_processor_without_a_rate_and_a_number_gives_a_part_that_reads_all_frames(family: str, tmp_path: Path) -> None:
    start = published(family, tmp_path / "start", fps=None, num_frames=None, do_sample_frames=False)
    model = loaded(start)
    assert model.plan.video.choose([number / 30 for number in range(1001)]) == list(range(1001))
    save_published(model, tmp_path / "export")
    assert model_of(str(tmp_path / "export")).video == model_of(str(start)).video
    assert not AutoProcessor.from_pretrained(tmp_path / "export").video_processor.do_sample_frames


@pytest.mark.parametrize("family", CASES)
def test_an_export_gives_the_same_ids_and_logits_for_a_video(family: str, tmp_path: Path) -> None:
    model = loaded(published(family, tmp_path / "start"))
    save_published(model, tmp_path / "export")
    frames = frames_of(CASES[family][2])
    batch, inputs = batch_of(model, frames), inputs_of(tmp_path / "export", frames)
    assert inputs["input_ids"].tolist() == batch.input_ids.tolist()
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "export", dtype=torch.float32).eval()
    inputs = {name: value for name, value in inputs.items() if name != "video_metadata"}
    with torch.no_grad():
        logits = theirs(**inputs).logits
        assert (model.logits(batch) - logits).abs().max() < 1e-5 * logits.abs().max()
        other = model.logits(batch_of(model, 255 - frames))
    assert_same_answers(model, batch, theirs, inputs)
    assert (other - logits).abs().max() > 0.01 * logits.abs().max()
