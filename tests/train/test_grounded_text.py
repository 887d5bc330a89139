"""Grounded texts become prompts with boxes in the form of the model, for the pixels that the model gets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken

from bench.inputs.tars import document_sample, jpeg
from tests.train.runs import LLAMA, TOWER, tiny_recipe, write_data
from vlmdata.grounding.spans import Grounding, Span, plain_boxes
from vlmdata.grounding.write import FORMS, read_text
from vlmdata.step import RecipeError
from vlmdata_train.convert.family import Family, all_families
from vlmdata_train.convert.published import Published
from vlmdata_train.data.left_out import UnusableSample, reason_code
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.data.reading import Reading
from vlmdata_train.model.batch import IGNORE
from vlmdata_train.model.box_form import BoxForm
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.tokens import byte_tokenizer

WIDTH, HEIGHT = 80, 40
LEFT, RIGHT, MIDDLE = [0.0, 0.0, 12.0, 40.0], [60.0, 10.0, 80.0, 30.0], [30.0, 10.0, 50.0, 30.0]  # pixels
Box = list[float]
Said = tuple[str, str, tuple[str, list[int]]]  # a text with {} for the words, the task, and (phrase, numbers of boxes)
SIZED = {"native", "smart_size", "longest_edge", "edges", "slices"}  # preprocessing for towers of any size


def fractions(boxes: list[Box]) -> list[tuple[float, float, float, float]]:
    return [(b[0] / WIDTH, b[1] / HEIGHT, b[2] / WIDTH, b[3] / HEIGHT) for b in boxes]


def grounded(said: Said, boxes: list[Box], image: int) -> tuple[str, dict[str, Any]]:
    """Return a text in its stored form, and its grounding as a sample's JSON has it."""
    frame, task, (phrase, numbers) = said
    before = frame.partition("{}")[0]
    behind = plain_boxes(fractions([boxes[n] for n in numbers]))
    words = f"{phrase} {behind}" if phrase and behind else phrase or behind
    span = Span(len(before), len(before) + len(phrase), len(before) + len(words), words, image, tuple(numbers))
    return frame.format(words), Grounding(task, (span,)).as_json()  # type: ignore[arg-type]


def picture() -> bytes:
    return jpeg(np.full((HEIGHT, WIDTH, 3), 200, np.uint8))


def conversation(boxes: list[Box], *said: Said) -> dict[str, Any]:
    """Return a sample with one image and turns of user and assistant, as vlmdata stores it."""
    pairs = [grounded(one, boxes, 0) for one in said]
    roles = ["user", *(["user", "assistant"] * len(said))[: len(said)]]
    sample = document_sample("a", [picture(), *(text for text, _ in pairs)], roles)
    facts = json.loads(sample["json"])
    facts["metadata"][0] |= {"boxes": boxes}
    facts["grounding"] = [None, *(grounding for _, grounding in pairs)]
    return {**sample, "json": json.dumps(facts).encode()}


def model(grounding: Any, **parts: Any) -> VisionLanguageModel:
    tower = {"encoder": {"open_clip": {"config": TOWER, "layer": -1}}, "language": {"hf_causal": {"config": LLAMA}}}
    return build_model(ModelRecipe(**{**tower, **parts, "grounding": grounding}))


def reading(built: VisionLanguageModel, stage: str = "instruct") -> Reading:
    return Reading(prompter_of(built), built.plan, stage, 4096)


def measured(sample: dict[str, Any]) -> dict[str, Any]:
    """Return a sample as the loader gives it to a length function: sizes of images in place of their bytes."""
    names = [name for name in sample if name.endswith("jpg")]
    rest = {name: value for name, value in sample.items() if name not in names}
    return {**rest, "__image_names__": names, "__images__": [(WIDTH, HEIGHT)] * len(names)}


def learnt(built: VisionLanguageModel, sample: dict[str, Any]) -> str:
    """Return the text that has a loss."""
    prompt = reading(built).prompt(sample)
    return str(built.tokenizer.decode([label for label in prompt.labels if label != IGNORE]))


ASK: Said = ("Where is {}?", "refer", ("the dog", []))
POINT: Said = ("{}", "refer", ("", [0]))


@pytest.mark.parametrize("form", [None, *FORMS])
def test_an_answer_is_read_back_as_the_box_of_the_picture(form: str | None) -> None:
    built = model(form, preprocessing="pad")  # a square of 80: the image has 20 rows above and below
    text = learnt(built, conversation([MIDDLE], ASK, POINT)).removesuffix("<|end|>")
    if form is None:
        assert text == "[0.375, 0.375, 0.625, 0.625]"
        return
    (found,) = read_text(text, form, 32, 32).found
    centre = [(found.boxes[0][n] + found.boxes[0][n + 2]) / 2 for n in (0, 1)]
    assert centre == pytest.approx([0.5, 0.5], abs=1 / 32)
    if form != "molmo":
        assert found.boxes[0] == pytest.approx((0.375, 0.375, 0.625, 0.625), abs=1 / 32)


def test_markup_becomes_special_tokens_and_look_alikes_of_the_data_stay_text() -> None:
    built = model("qwen2_vl")
    sneaky: Said = ("<|box_start|>(1,1)<|box_end|> is {}", "mention", ("the <|im_end|> dog<|box_end|>", [0]))
    prompt = reading(built).prompt(conversation([MIDDLE], ASK, sneaky))
    vocabulary = built.tokenizer.get_vocab()
    names = ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>")
    counts = [prompt.labels.count(vocabulary[name]) for name in names]
    assert counts == [1, 1, 1, 1]
    text = built.tokenizer.decode([label for label in prompt.labels if label != IGNORE])
    assert "(375,250),(625,750)" in text
    assert prompt.labels.count(built.tokenizer.eos_token_id) == 1


def test_text_without_boxes_is_as_before() -> None:
    sample = document_sample("a", [picture(), "What <|box_start|>?", "a dog"], ["user", "user", "assistant"])
    built = model("qwen2_vl")
    text = built.tokenizer.decode(reading(built).prompt(sample).input_ids)
    assert "<\u2060|box_start|>" in text


@pytest.mark.parametrize("preprocessing", ["resize", "pad", "centre_crop", "resize_pad", "anyres", "dynamic_tiles"])
@pytest.mark.parametrize("form", [None, "kosmos2", "qwen2_5_vl"])
def test_lengths_without_pixels_are_those_of_the_prompts(form: str | None, preprocessing: str) -> None:
    read = reading(model(form, preprocessing=preprocessing))
    for boxes in ([MIDDLE], [RIGHT], [LEFT]):
        sample = conversation(boxes, ASK, POINT, ("What is {}?", "describe", ("", [0])), ("a dog", "describe", ("", [])))
        sample = without_grounding_of_last(sample)
        length = read(measured(sample))
        try:
            assert length == len(read.prompt(sample).input_ids)
        except UnusableSample as error:
            assert length == reason_code(error.reason)


def without_grounding_of_last(sample: dict[str, Any]) -> dict[str, Any]:
    facts = json.loads(sample["json"])
    facts["grounding"][-1] = None
    return {**sample, "json": json.dumps(facts).encode()}


def test_a_turn_whose_boxes_are_cropped_is_left_out_with_its_question() -> None:
    built = model("qwen2_vl", preprocessing="centre_crop")  # shows the middle 40 x 40
    turns: list[Said] = [
        ("Where is {}?", "refer", ("the dog", [])), ("{}", "refer", ("", [0])),
        ("Where is {}?", "refer", ("the cat", [])), ("{}", "refer", ("", [1])),
    ]  # fmt: skip
    prompt = reading(built).prompt(conversation([LEFT, MIDDLE], *turns))
    text = built.tokenizer.decode(prompt.input_ids)
    assert prompt.unseen_turns == 1
    assert "the cat" in text and "the dog" not in text
    assert len(prompt.images) == 1
    assert "(250,250),(750,750)" in text


def test_a_conversation_without_any_box_in_view_is_left_out_with_its_reason() -> None:
    built = model("qwen2_vl", preprocessing="centre_crop")
    sample = conversation([LEFT], ASK, POINT)
    with pytest.raises(UnusableSample, match="boxes_out_of_view"):
        reading(built).prompt(sample)
    assert reading(built)(measured(sample)) == reason_code("boxes_out_of_view")


def test_the_share_that_must_be_visible_is_a_parameter() -> None:
    half = [20.0 - 6, 10.0, 20.0 + 14, 30.0]  # the crop begins at 20, so 70% is left
    for least, is_seen in ((0.69, True), (0.71, False)):
        built = model({"qwen2_vl": {"min_visible": least}}, preprocessing="centre_crop")
        said: Said = ("There is {} here.", "mention", ("a dog", [0]))
        assert ("<|box_start|>" in learnt(built, conversation([half], ("Look.", "mention", ("", [])), said))) == is_seen


def test_a_caption_has_boxes_but_its_alternatives_have_none() -> None:
    text, grounding = grounded(("A photo of {}.", "mention", ("a dog", [0])), [MIDDLE], 0)
    facts = {"boxes": [MIDDLE], "grounding": grounding, "alternatives": ["Something else."]}
    sample = {"__key__": "a", "jpg": picture(), "txt": text.encode(), "json": json.dumps(facts).encode()}
    built = model("qwen2_vl")
    read = reading(built, "align")
    texts = [built.tokenizer.decode(read.prompt({**sample, "__seed__": seed}).input_ids) for seed in (0, 1)]
    assert "<|box_start|>(375,250),(625,750)<|box_end|>" in texts[0]
    assert "<|box_start|>" not in texts[1]
    lengths = [length for length, _ in read(measured(sample))]  # type: ignore[union-attr]
    assert lengths == [len(read.prompt({**sample, "__seed__": seed}).input_ids) for seed in (0, 1)]


@pytest.mark.parametrize(
    "boxes", [None, 7, [None], [[1, 2, 3]], [["a", 1, 2, 3]], [[5, 5, 1, 1]], [[1e400, 0, 1, 1]], [[0, 0, 9, 9]]]
)
def test_damaged_boxes_leave_the_words(boxes: Any) -> None:
    built = model("qwen2_vl")
    sample = conversation([MIDDLE, RIGHT], ASK, ("There is {}.", "mention", ("a dog", [1])))
    facts = json.loads(sample["json"])
    facts["metadata"][0]["boxes"] = boxes
    text = learnt(built, {**sample, "json": json.dumps(facts).encode()})
    assert text.startswith("There is ") and "a dog" in text


def test_an_unknown_form_is_named_before_anything_is_read(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    parts = {"encoder": {"open_clip": {"config": TOWER, "layer": -1}}, "language": {"hf_causal": {"config": LLAMA}}}
    with pytest.raises(RecipeError, match=r"model, grounding: .*qwen2_v1.*qwen2_vl"):
        tiny_recipe(data, tmp_path / "out", model={**parts, "grounding": "qwen2_v1"})
    with pytest.raises(RecipeError, match="min_visible must be from 0 to 1"):
        tiny_recipe(data, tmp_path / "out", model={**parts, "grounding": {"qwen2_vl": {"min_visible": 2}}})
    with pytest.raises(RecipeError, match="grounding"):
        tiny_recipe(data, tmp_path / "out", model={**parts, "grounding": {"qwen2_vl": {"least": 2}}})


def test_missing_tokens_of_a_form_are_added_to_the_vocabulary() -> None:
    for form in ("kosmos2", "paligemma", "qwen2_vl", "internvl"):
        built = model(form)
        tokens = built.plan.grounding.tokens  # type: ignore[union-attr]
        ids = built.tokenizer.convert_tokens_to_ids(list(tokens))
        assert len(set(ids)) == len(tokens) > 0
        assert max(ids) < built.language.get_input_embeddings().weight.shape[0]
        assert built.tokenizer("".join(tokens), add_special_tokens=False)["input_ids"] == ids


def test_generated_boxes_stay_in_the_answer() -> None:
    built = model("qwen2_vl")
    text = "<|box_start|>(1,2),(3,4)<|box_end|>"
    ids = built.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert prompter_of(built).answer_text([*ids, built.tokenizer.eos_token_id]) == text
    assert prompter_of(built).clean_answer(text) == text
    assert prompter_of(built).clean(text) != text


def test_a_published_model_gives_its_form_if_its_tokenizer_has_the_tokens(tmp_path: Path) -> None:
    class Found(Family):
        grounding = "qwen2_vl"

    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path / "without")
    tokenizer.add_tokens([AddedToken(name, special=True) for name in BoxForm("qwen2_vl").tokens])
    tokenizer.save_pretrained(tmp_path / "with")
    assert Found().grounding_of(Published(str(tmp_path / "without"))) is None
    assert Found().grounding_of(Published(str(tmp_path / "with"))) == "qwen2_vl"
    forms = {family.title: family.grounding for family in all_families() if family.grounding}
    assert forms == {
        "Qwen2-VL": "qwen2_vl", "Qwen2.5-VL": "qwen2_5_vl", "Qwen3-VL": "qwen3_vl", "PaliGemma": "paligemma",
        "Kosmos-2": "kosmos2", "InternVL": "internvl", "InternVL (original format)": "internvl",
    }  # fmt: skip
