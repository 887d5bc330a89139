"""Images are scored by small heads on stored embeddings."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from safetensors.numpy import save_file

from tests.rows import captions
from vlmdata.demo.recipe import HERE
from vlmdata.preflight.examine import examine
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.classifier_head import ClassifierHead
from vlmdata.steps.clip_score import ClipScore

ONE = {"input": {"width": 2, "normalise": "none"}, "layers": [{"width": 1, "weight": "w", "bias": ""}], "outputs": {"fine": 0}}
TWO = {**ONE, "layers": [{"width": 3, "weight": "w", "bias": ""}], "outputs": {"cat": 2, "dog": 0}}


def head(folder: Path, tree: dict[str, Any], weight: list[list[float]], **step: Any) -> ClassifierHead:
    """Return the step with a head of one layer, written to the folder."""
    save_file({"w": np.array(weight, np.float32)}, folder / "w.safetensors")
    (folder / "head.yaml").write_text(yaml.safe_dump({**tree, "weights": {"file": "w.safetensors"}}, sort_keys=False))
    return ClassifierHead(head=str(folder / "head.yaml"), **step)


def embedded(*vectors: list[float] | None) -> pa.Table:
    values = [[np.array(v, "<f2").tobytes() if v else None, None] for v in vectors]
    return set_column(captions(["t"] * len(vectors)), "clip_score.embedding", pa.array(values, pa.list_(pa.binary())))


def test_limits_are_inclusive_and_an_image_without_a_score_stays(tmp_path: Path) -> None:
    step = head(tmp_path, ONE, [[0.1, 1]], min={"fine": 0.1}, max={"fine": 0.7})
    step.check()
    found = step.run(embedded([1, 0], [0.9995, 0], [7, 0], [7.004, 0], None, [np.nan, 0]))
    assert found["classifier_head"].to_pylist() == [
        [pytest.approx(value) if value else None, None] for value in (0.1, 0.1, 0.7, 0.7004, None, None)
    ]
    assert found["reason"].to_pylist() == [None, None, None, "max_fine", None, None]
    assert found["threshold"].to_pylist()[3] == 0.7 and found["value"].to_pylist()[3] == pytest.approx(0.7004)
    assert found["classifier_head.scores"].to_pylist() == [[None, None]] * 6


def test_every_named_output_is_stored_and_can_reject(tmp_path: Path) -> None:
    step = head(tmp_path, TWO, [[1, 0], [5, 5], [0, 1]], min={"dog": 2}, max={"cat": 4})
    step.check()
    found = step.run(embedded([1, 3], [2, 4], [2, 5], None))
    assert found["classifier_head"].to_pylist() == [[3, None], [4, None], [5, None], [None, None]]
    assert found["classifier_head.scores"].to_pylist() == [[[3, 1], None], [[4, 2], None], [[5, 2], None], [None, None]]
    assert found["reason"].to_pylist() == ["min_dog", None, "max_cat", None]


def test_a_row_that_an_earlier_step_rejected_is_not_scored(tmp_path: Path) -> None:
    rows = embedded([1, 3], [2, 4])
    rows = set_column(rows, "drop", pa.array(["download", None], pa.string()))
    found = head(tmp_path, TWO, [[1, 0], [5, 5], [0, 1]], min={"dog": 3}).run(rows)
    assert found["classifier_head"].to_pylist() == [None, [4, None]] and found["drop"].to_pylist() == [
        "download",
        "classifier_head",
    ]


def test_another_limit_does_not_measure_again_but_another_head_does(tmp_path: Path) -> None:
    step = head(tmp_path, ONE, [[0.1, 1]])
    measured = step.run(embedded([1, 0]))
    first = step.identity()
    stricter = ClassifierHead(head=step.head, min={"fine": 0.5})
    assert stricter.identity() == first and stricter.decide(measured)["reason"].to_pylist() == ["min_fine"]
    assert head(tmp_path, ONE, [[0.2, 1]]).identity() != first


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min": {"fin": 1}}, r"classifier_head\.min: the head has no score 'fin'\. Did you mean 'fine'\?"),
        ({"max": {"fine": float("nan")}}, r"classifier_head\.max\.fine must be a number, not nan"),
        ({"min": {"fine": 2}, "max": {"fine": 1}}, r"classifier_head\.min\.fine = 2 is above max\.fine = 1"),
        ({"weights": "nowhere.pt"}, r"classifier_head\.weights: there is no file nowhere\.pt"),
        ({"weights": "nowhere.pt", "label": "mine"}, r"mine\.weights: there is no file nowhere\.pt"),
    ],
)
def test_mistakes_are_one_line_that_begins_with_the_parameter(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"^{message}"):
        head(tmp_path, ONE, [[0.1, 1]], **given).check()


def test_a_hostile_file_of_weights_is_refused_by_check(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1, 2), "x": Path}, tmp_path / "h.pt")
    with pytest.raises(RecipeError, match=r"^classifier_head\.weights: \S+ is not loaded, because it holds other objects"):
        head(tmp_path, ONE, [[0.1, 1]], weights=str(tmp_path / "h.pt")).check()


def test_embeddings_of_another_width_are_one_line(tmp_path: Path) -> None:
    step = head(tmp_path, ONE, [[0.1, 1]])
    with pytest.raises(RecipeError, match=r"^classifier_head\.embedding: the head takes embeddings of width 2, not 3\. Name"):
        step.run(embedded([1, 0, 0]))


ENCODER = {"models": ["ViT-L-14-quickgelu", "ViT-L-14"], "pretrained": "openai"}
FITS = {"model": "ViT-L-14", "pretrained": "openai", "embeddings": True}


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (FITS, ""),
        ({**FITS, "model": "ViT-L-14-quickgelu"}, ""),
        (
            {**FITS, "model": "ViT-B-32"},
            r"head: the head does not fit clip_score: it was made for .*, not for ViT-B-32\. Embed",
        ),
        (
            {**FITS, "pretrained": "laion2b_s32b_b82k"},
            r"head: .* for the weights openai, not for laion2b_s32b_b82k\. Embed with",
        ),
        ({**FITS, "model": "hf-hub:somebody/clip"}, ""),
    ],
)
def test_embeddings_of_another_encoder_are_refused(clip: dict[str, Any], message: str, tmp_path: Path) -> None:
    wide = {**ONE, "input": {"width": 768, "normalise": "l2"}, "encoder": ENCODER}
    step = head(tmp_path, wide, [[0.1] * 768])
    with pytest.raises(RecipeError, match=rf"^classifier_head\.{message}") if message else nullcontext():
        step.check_steps([ClipScore(**clip)])


def test_a_file_of_other_encoder_weights_is_refused_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "clip.pt").write_bytes(b"\x80 weights")
    clip = ClipScore(model="ViT-L-14", pretrained=str(tmp_path / "clip.pt"), embeddings=True)
    right = "6c9ce4ae1a5f6b9a5a2b7cbd8fb2a6c4a0a3e8f3f3c9b9f5d0e4f1a2b3c4d5e6"
    tree = {**ONE, "input": {"width": 768, "normalise": "l2"}, "encoder": {**ENCODER, "sha256": right}}
    with pytest.raises(RecipeError, match=r"^classifier_head\.head: .* no file of weights in \S+clip\.pt has the SHA-256"):
        head(tmp_path, tree, [[0.1] * 768]).check_steps([clip])
    head(tmp_path, {**tree, "encoder": ENCODER}, [[0.1] * 768]).check_steps([clip])  # without a hash it is not known


def test_check_of_a_recipe_reports_embeddings_of_another_width(tmp_path: Path) -> None:
    step = head(tmp_path, ONE, [[0.1, 1]])
    (tmp_path / "list.csv").write_text("url,caption\nhttp://example.org/a.jpg,A cat\n")
    clip = {"model": f"local-dir:{HERE / 'clip'}", "embeddings": True}
    tree = {
        "source": {"type": "url_list", "path": str(tmp_path / "list.csv"), "url": "url", "caption": "caption"},
        "steps": [{"download": {}}, {"clip_score": clip}, {"classifier_head": {"head": step.head}}],
    }
    _, findings = examine((tree, "recipe"))
    assert findings.mistakes == [
        "classifier_head.head: the head does not fit clip_score: its embeddings have width 128, and those that the head takes "
        "have width 2. Embed with another model, or name another head"
    ]
