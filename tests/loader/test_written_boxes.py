"""Decode writes the boxes of texts in the form of a model, for the pixels that it returns."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from bench.inputs.tars import document_sample, jpeg
from vlmdata import Decode
from vlmdata.errors import InputError, RecipeError
from vlmdata.grounding.spans import Grounding, Span, Task, plain_boxes
from vlmdata.grounding.write import read_text

WIDTH, HEIGHT = 160, 80
BOX, LEFT = [70.0, 20.0, 110.0, 60.0], [0.0, 0.0, 30.0, 80.0]  # pixels; a centre crop has the columns 40 to 119
RED = (220, 20, 20)


def picture(box: list[float]) -> bytes:
    """Return a grey image with a red rectangle."""
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    x0, y0, x1, y1 = map(int, box)
    pixels[y0:y1, x0:x1] = RED
    return jpeg(pixels)


def grounded(words: str, box: list[float], task: Task = "mention", *, phrase: str = "the square", image: int = 0) -> Any:
    """Return a text in its stored form, with {} replaced by a phrase and its box 0, and its grounding."""
    sides = (WIDTH, HEIGHT, WIDTH, HEIGHT)
    x0, y0, x1, y1 = (edge / side for edge, side in zip(box, sides, strict=True))
    start, own = words.index("{}"), f"{phrase} {plain_boxes([(x0, y0, x1, y1)])}".strip()
    span = Span(start, start + len(phrase), start + len(own), own, image, (0,))
    return words.replace("{}", own), Grounding(task, (span,)).as_json()


def caption(box: list[float] = BOX, task: Task = "mention", **facts: Any) -> dict[str, Any]:
    """Return a caption pair as a stream gives it to Decode."""
    text, grounding = grounded("Look at {}!", box, task)
    facts = {"caption": text, "boxes": [box], "grounding": grounding, **facts}
    sample = {"__key__": "a", "__url__": "t.tar", "__seed__": 0, "jpg": picture(box), "txt": text.encode()}
    return {**sample, "json": json.dumps(facts).encode()}


def red(pixels: np.ndarray) -> list[float]:
    """Return the edges of the red rectangle in pixels, as fractions."""
    mask = pixels[:, :, 0].astype(int) - pixels[:, :, 1] > 100
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return [columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height]


@pytest.mark.parametrize("mode", ["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"])
def test_a_written_box_is_where_the_pixels_are(mode: Any) -> None:
    found = Decode(size=64, mode=mode, filter="area", grounding="qwen2_vl")(caption())
    text = read_text(found["txt"], "qwen2_vl", *found["jpg"].shape[1::-1])
    assert text.text == "Look at the square!"
    assert text.found[0].boxes[0] == pytest.approx(red(found["jpg"]), abs=1.5 / 64)


def test_without_a_form_the_text_stays_as_stored() -> None:
    sample = caption()
    assert Decode(size=64, filter="area")(sample)["txt"].encode() == sample["txt"]


def test_a_caption_whose_box_is_cropped_keeps_its_words() -> None:
    decode = Decode(size=64, filter="area", grounding="qwen2_vl")
    assert decode(caption(LEFT))["txt"] == "Look at the square!"
    assert decode(caption(LEFT, "refer"))["txt"] == ""


def test_a_drawn_alternative_has_no_boxes() -> None:
    sample = caption(alternatives=["Look at this!"])
    decode = Decode(size=64, filter="area", grounding="kosmos2")
    texts = [decode({**sample, "__seed__": seed})["txt"] for seed in (0, 1)]
    assert texts[0].startswith("<grounding> Look at<phrase> the square</phrase><object><patch_index_")
    assert texts[1] == "Look at this!"


def conversation(box: list[float]) -> dict[str, Any]:
    """Return a conversation of three questions. The second answer is a box of the first image."""
    answer, grounding = grounded("{}", box, "refer", phrase="")
    texts = ["What is it?", "A drawing.", "Where is the square?", answer, "Thanks.", "Welcome."]
    roles = ["user", *(["user", "assistant"] * 3)]
    sample = document_sample("a", [picture(box), *texts], roles)
    facts = json.loads(sample["json"])
    facts["metadata"][0]["boxes"] = [box]
    facts["grounding"] = [None, None, None, None, grounding, None, None]
    return {**sample, "__url__": "t.tar", "__seed__": 0, "json": json.dumps(facts).encode()}


def test_texts_of_a_conversation_are_written() -> None:
    found = Decode(size=64, mode="border", filter="area", grounding="internvl")(conversation(BOX))
    (box,) = read_text(found["json"]["texts"][4], "internvl", 64, 64).found[0].boxes
    assert box == pytest.approx(red(found["0.jpg"]), abs=1.5 / 64)
    assert found["json"]["texts"][:4] == [None, "What is it?", "A drawing.", "Where is the square?"]


def test_a_question_whose_box_is_cropped_is_left_out_with_its_answer() -> None:
    found = Decode(size=64, filter="area", grounding="internvl")(conversation(LEFT))
    assert found["json"]["texts"] == [None, "What is it?", "A drawing.", None, None, "Thanks.", "Welcome."]


def test_control_tokens_of_the_data_stay_text() -> None:
    text, grounding = grounded("<|box_end|> {}", BOX)
    sample = caption(grounding=grounding)
    found = Decode(grounding="qwen2_vl")({**sample, "txt": text.encode()})["txt"]
    assert found.startswith("< |box_end|> <|object_ref_start|>")


@pytest.mark.parametrize("grounding", [7, [], [{}], {"task": "mention"}, {"task": "mention", "spans": [{"start": -1}]}])
def test_damaged_groundings_leave_the_text(grounding: Any) -> None:
    sample = caption(grounding=grounding)
    assert Decode(grounding="qwen2_vl")(sample)["txt"].encode() == sample["txt"]


def test_mistakes_are_named() -> None:
    with pytest.raises(RecipeError, match=r"qwen2_v1.*Did you mean"):
        Decode(grounding="qwen2_v1")
    with pytest.raises(InputError, match="augment may move what boxes show"):
        Decode(grounding="qwen2_vl", augment=lambda pixels, random: pixels)
    with pytest.raises(InputError, match="min_visible must be from 0 to 1"):
        Decode(min_visible=1.5)


def test_boxes_need_no_torch() -> None:
    code = "import sys; from vlmdata import Decode; Decode(64, filter='area', grounding='qwen2_vl')"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
