"""InstructBLIP's export gives its Q-Former the question that the trainer gives, with the tokenizer of the published model."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Blip2VisionConfig,
    Blip2VisionModel,
    InstructBlipConfig,
    InstructBlipVisionConfig,
    InstructBlipVisionModel,
)

from tests.train.made import VISION
from tests.train.made_instruct import instructblip_processor, reader, vicuna_tokenizer
from tests.train.published import write_published
from tests.train.test_published import TOLERANCE, batch_of, loaded, png, served
from tests.train.test_shipped_recipes import tiny
from tests.train.tiny import LLAMA, randomise, tiny_model
from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.convert.families.instructblip import InstructBlip
from vlmdata_train.convert.save_published import format_of, save_published
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.marks import IMAGE_MARK
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.recipe_file import load

pytestmark = pytest.mark.whole

TOWER = {**VISION, "image_size": 16, "patch_size": 4}
QUESTION = "What is it?"


def edited(folder: Path, **changes: Any) -> Path:
    """Write the files of an InstructBLIP without its weights, with changes in its configuration."""
    tokenizer = vicuna_tokenizer()
    instructblip_processor(tokenizer).save_pretrained(folder)
    parts = {name: {**changes.pop(f"{name}_config", {})} for name in ("vision", "qformer", "text")}
    InstructBlipConfig(
        vision_config={**TOWER, **parts["vision"]}, qformer_config={"vocab_size": len(reader()), **parts["qformer"]},
        text_config={"model_type": "llama", **parts["text"]},
        **{"image_token_index": tokenizer.convert_tokens_to_ids("<image>"), **changes},
    ).save_pretrained(folder)  # fmt: skip
    return folder


@torch.no_grad()
def assert_served_alike_and_the_question_matters(ours: VisionLanguageModel, folder: Path) -> None:
    """Assert that an export gives our ids, questions and logits, and that other words for the Q-Former change its logits."""
    theirs, inputs = served(folder, 1, QUESTION)
    batch = batch_of(ours, 1)
    assert inputs["qformer_input_ids"].tolist() == batch.questions.tolist()
    assert inputs["input_ids"].tolist() == batch.input_ids.tolist()
    logits = theirs(**inputs).logits
    assert (ours.logits(batch) - logits).abs().max() < TOLERANCE * logits.abs().max()
    other = {**inputs, "qformer_input_ids": torch.full_like(inputs["qformer_input_ids"], 9)}
    assert (theirs(**other).logits - logits).abs().max() > 100 * TOLERANCE * logits.abs().max()


def test_the_exported_processor_reads_the_question_as_the_trainer_does(tmp_path: Path) -> None:
    model = loaded(write_published("InstructBLIP", tmp_path / "start"))
    randomise(model.abstractor, scale=0.8)  # with smaller weights the question hardly matters
    save_published(model, tmp_path / "export")
    assert_served_alike_and_the_question_matters(model, tmp_path / "export")
    again = loaded(tmp_path / "export")
    assert again.plan.abstractor.tokenizer == f"{tmp_path}/export/qformer_tokenizer"
    tokenizer = again.plan.abstractor.question_tokenizer()
    assert tokenizer.get_vocab() == reader().get_vocab()
    assert (tokenizer.truncation_side, tokenizer.bos_token) == ("left", "[DEC]")


def test_a_q_former_that_reads_words_of_the_language_model_is_exported(tmp_path: Path) -> None:
    part = {"queries": 5, "width": 24, "layers": 3, "heads": 2, "mlp_width": 30}
    ours = tiny_model(ModelRecipe(
        encoder={"blip2": {"config": TOWER}}, abstractor={"instruct_q_former": part},
        language={"hf_causal": {"config": LLAMA, "chat_template": InstructBlip.template}},
        writing={"plain": {"bos": "after_images"}},
    ))  # fmt: skip
    with pytest.raises(ValueError, match="language: InstructBLIP's format supports only a tokenizer that adds BOS"):
        format_of(ours)
    ours.tokenizer.add_bos_token = True  # type: ignore[attr-defined]
    randomise(ours, scale=0.25)
    randomise(ours.abstractor, scale=0.8)
    save_published(ours, tmp_path / "export")
    assert_served_alike_and_the_question_matters(ours, tmp_path / "export")


@torch.no_grad()
def test_the_tower_is_that_of_blip_2() -> None:
    theirs = InstructBlipVisionModel(InstructBlipVisionConfig(**TOWER)).eval()
    ours = Blip2VisionModel(Blip2VisionConfig(**TOWER)).eval()
    randomise(theirs, seed=2)
    ours.load_state_dict(theirs.state_dict())
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(pixels).last_hidden_state, theirs(pixels).last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_are_loaded_exactly(dtype: torch.dtype, tmp_path: Path) -> None:
    start = write_published("InstructBLIP", tmp_path, dtype=dtype)
    theirs, inputs = served(start, 1, QUESTION)
    logits = theirs(**inputs).logits
    ours = loaded(start)
    assert (ours.logits(batch_of(ours, 1)) - logits).abs().max() < TOLERANCE * logits.abs().max()


@torch.no_grad()
def test_an_export_in_bf16_has_the_queries_in_bf16_and_close_logits(tmp_path: Path) -> None:
    ours = loaded(write_published("InstructBLIP", tmp_path / "start")).to(torch.bfloat16)
    save_published(ours, tmp_path / "export")
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "export").eval()
    _, inputs = served(tmp_path / "export", 1, QUESTION)
    logits = theirs(**{**inputs, "pixel_values": inputs["pixel_values"].bfloat16()}).logits
    assert (logits.dtype, theirs.query_tokens.dtype) == (torch.bfloat16, torch.bfloat16)
    batch = batch_of(ours, 1)
    assert (ours.logits(batch) - logits).abs().max() < 0.02 * logits.abs().max()


def test_the_prompt_before_the_first_answer_is_the_question(tmp_path: Path) -> None:
    model = loaded(write_published("InstructBLIP", tmp_path))
    prompter, part = prompter_of(model), model.plan.abstractor
    one, two = ({"role": "user", "content": text} for text in ("What is it?", "How many are there?"))
    answered = {"role": "assistant", "content": "It is red."}
    for messages, question, text in [
        ([one], QUESTION, QUESTION),
        ([one, two], "What is it?\nHow many are there?", "What is it?\nHow many are there?"),
        ([one, answered, two], QUESTION, "What is it? It is red.</s>How many are there?"),
    ]:
        assert prompter.template.render(messages, add_generation_prompt=True) == text
        assert prompter.question(messages, []).question == part.question_ids(model.tokenizer, question)


def test_the_shipped_recipe_writes_the_prompts_of_loaded_models_and_is_exported() -> None:
    recipe = load("instructblip")
    model = build_model(ModelRecipe(**{kind: tiny(part) for kind, part in asdict(recipe.model).items()}))
    model.tokenizer.add_bos_token = True  # type: ignore[attr-defined]  # as Vicuna's
    messages = [{"role": "user", "content": f"{IMAGE_MARK}\n{QUESTION}"}, {"role": "assistant", "content": "It is red."}]
    texts = []
    for template in (recipe.chat_template, InstructBlip.template):
        model.tokenizer.chat_template = template
        texts.append([prompter_of(model).template.render(messages[:n], add_generation_prompt=True) for n in (1, 2)])
    assert texts[0] == texts[1] == [f"<image>{QUESTION}", f"<image>{QUESTION} It is red.<|end|>"]
    assert format_of(model).title == "InstructBLIP"


@torch.no_grad()
def test_after_an_answer_the_ids_of_the_first_question_give_our_logits(tmp_path: Path) -> None:
    ours = loaded(write_published("InstructBLIP", tmp_path))
    randomise(ours.abstractor, scale=0.8)
    save_published(ours, tmp_path)
    texts = [IMAGE_MARK + QUESTION, "It is red.", "How many are there?"]
    messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant", "user"), texts, strict=True)]
    prompter = prompter_of(ours)
    written = prompter.template.render(messages, add_generation_prompt=True).removeprefix("<image>")
    theirs, inputs = served(tmp_path, 1, written)
    ready = Ready(prompter.question(messages, [png(0)]), "a", "k")
    batch = build_batch([ready], ours.plan, 0, packed_tokens=None, broken=Counter())
    assert inputs["input_ids"].tolist() == batch.input_ids.tolist()
    logits = ours.logits(batch)
    assert (theirs(**inputs).logits - logits).abs().max() > 100 * TOLERANCE * logits.abs().max()
    question = AutoProcessor.from_pretrained(tmp_path).qformer_tokenizer(QUESTION, return_tensors="pt")
    given = {**inputs, **{f"qformer_{name}": question[name] for name in ("input_ids", "attention_mask")}}
    assert (theirs(**given).logits - logits).abs().max() < TOLERANCE * logits.abs().max()


@pytest.mark.parametrize(("changes", "message"), [
    ({"text_config": {"model_type": "t5"}}, "language: .* has a t5, which has an encoder"),
    ({"image_token_index": None}, "writing: .* no image token, as in older files of InstructBLIP"),
    ({"qformer_config": {"vocab_size": 30}}, "abstractor: .* has vocab_size: 30, but only 18 can be loaded"),
    ({"qformer_config": {"hidden_act": "relu"}}, "abstractor: .* has hidden_act: relu, but only gelu can be loaded"),
    ({"qformer_config": {"layer_norm_eps": 0.1}}, "abstractor: .* has layer_norm_eps: 0.1, but only 1e-12 can be loaded"),
    ({"qformer_config": {"hidden_dropout_prob": 0.2}}, "abstractor: .* has attention_probs_dropout_prob: 0.1, but only 0.2"),
])  # fmt: skip
def test_what_cannot_be_loaded_is_named_with_its_part(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"^start: {message}"):
        model_of(str(edited(tmp_path, **changes)))


def test_a_model_without_the_tokenizer_of_its_q_former_is_refused(tmp_path: Path) -> None:
    start = edited(tmp_path)
    for file in (start / "qformer_tokenizer").iterdir():
        file.unlink()
    (start / "qformer_tokenizer").rmdir()
    with pytest.raises(RecipeError, match=r"^start: .* lacks a file of a published model: "):
        model_of(str(start))
