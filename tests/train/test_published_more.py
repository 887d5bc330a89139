"""DeepSeek-VL is exported from own parts, and Fuyu's processor and its prompts equal the trainer's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from tests.train.published import write_published
from tests.train.test_parity_deepseek import RECIPES, picture
from tests.train.test_published import TOLERANCE, batch_of, loaded, served
from tests.train.tiny import tiny_model
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.convert.save_published import save_published
from vlmdata_train.data.marks import IMAGE_MARK
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.model.pixels import normalise

pytestmark = pytest.mark.whole

KINDS = {"one tower": "deepseek_vl", "two towers": "deepseek_vl_hybrid"}


@pytest.mark.parametrize("design", RECIPES)
def test_deepseek_of_own_parts_is_exported_and_transformers_answers_alike(design: str, tmp_path: Path) -> None:
    ours = tiny_model(RECIPES[design], seed=1)
    save_published(ours, tmp_path)
    for images in (1, 3):
        theirs, inputs = served(tmp_path, images)
        batch = batch_of(ours, images)
        assert theirs.config.model_type == KINDS[design]
        assert inputs["input_ids"].tolist() == batch.input_ids.tolist()
        with torch.no_grad():
            logits = theirs(**inputs).logits
            assert (ours.logits(batch) - logits).abs().max() < TOLERANCE * logits.abs().max()


@pytest.mark.parametrize("family", ["DeepSeek-VL", "DeepSeek-VL, hybrid"])
def test_an_output_layer_is_used_though_the_configuration_ties_by_default(family: str, tmp_path: Path) -> None:
    start = write_published(family, tmp_path)
    facts = json.loads((start / "config.json").read_text())
    del facts["tie_word_embeddings"]
    (start / "config.json").write_text(json.dumps(facts))
    model, (theirs, _) = loaded(start), served(start, 0)
    assert theirs.config.tie_word_embeddings
    assert torch.equal(model.lm_head.weight, theirs.lm_head.weight)
    assert not torch.equal(model.lm_head.weight, model.language.get_input_embeddings().weight)


@pytest.mark.parametrize("size", [(40, 60), (60, 80), (61, 80), (200, 90), (33, 300), (3, 5)])
def test_fuyus_ids_and_patches_of_any_image_equal_those_of_its_processor(size: tuple[int, int], tmp_path: Path) -> None:
    model = loaded(write_published("Fuyu", tmp_path / "start"))
    save_published(model, tmp_path / "export")
    image = picture(*size)
    text = "two  blanks, and\n<b>lines</b>"
    inputs = AutoProcessor.from_pretrained(tmp_path / "export")(text=f"{text}\n", images=Image.fromarray(image))
    prompt = prompter_of(model).question([{"role": "user", "content": f"{IMAGE_MARK}\n{text}"}], [size[::-1]])
    assert inputs["input_ids"][0].tolist() == prompt.input_ids
    tiles = model.plan.preprocessing.prepare(image, model.plan.facts)
    patches = model.encoder(normalise(tiles, model.plan.facts.mean, model.plan.facts.std, torch.float32))
    theirs = inputs["image_patches"]
    assert theirs.shape == patches[0].shape
    assert (theirs - patches[0]).abs().max() <= 2 / 255 + 1e-6  # one step of 255: only the filters of resizing differ


def test_an_export_of_fuyu_is_loaded_with_the_same_parts(tmp_path: Path) -> None:
    start = write_published("Fuyu", tmp_path / "start")
    model = loaded(start)
    save_published(model, tmp_path / "export")
    again = model_of(str(tmp_path / "export"))
    expected = model_of(str(start))
    for kind in ("encoder", "preprocessing", "abstractor", "writing"):
        assert getattr(again, kind) == getattr(expected, kind)
    assert loaded(tmp_path / "export").tokenizer.get_vocab() == model.tokenizer.get_vocab()


def test_the_template_of_a_fuyu_writes_the_text_that_its_processor_takes(tmp_path: Path) -> None:
    save_published(loaded(write_published("Fuyu", tmp_path / "start")), tmp_path / "export")
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    asked = [{"role": "user", "content": content}]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert tokenizer.apply_chat_template(asked, tokenize=False) == "What is it?\n"
    said = [*asked, {"role": "assistant", "content": "A cat."}, {"role": "user", "content": "Sure?"}]
    assert tokenizer.apply_chat_template(said, tokenize=False) == "What is it?\n<0x04>A cat.|ENDOFTEXT|Sure?\n"


def test_a_question_cannot_contain_the_tokens_of_fuyus_prompts(tmp_path: Path) -> None:
    model = loaded(write_published("Fuyu", tmp_path))
    prompter = prompter_of(model)
    names = ["<0x04>", "|SPEAKER|", "|NEWLINE|", "<s>", "|ENDOFTEXT|"]
    messages = [{"role": "user", "content": prompter.clean(" ".join(names))}]
    ids = np.array(prompter.question(messages, []).input_ids)
    counts = [int((ids == model.tokenizer.convert_tokens_to_ids(name)).sum()) for name in names]
    assert counts == [1, 0, 0, 1, 0]  # those of the prompt
