"""Idefics 1's divided tables are joined and divided again, and its processor gives the trainer's pixels and conversations."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoProcessor, IdeficsForVisionText2Text

from tests.train.families import texts_and_images
from tests.train.original_llava import tokenizer_of
from tests.train.published import write_published
from tests.train.test_published import edit_json, loaded, picture, png
from tests.train.test_shipped_recipes import tiny_parts
from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.convert.fill import fill_from_published
from vlmdata_train.convert.published import Published
from vlmdata_train.convert.save_published import format_of, save_published
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.marks import IMAGE_MARK
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.model.model import build_model
from vlmdata_train.model.weight_places import weight_places

pytestmark = pytest.mark.whole

FLOAT, VECTOR = (f"Idefics 1, {gates} gates" for gates in ("float", "vector"))
TABLES = {
    "language.model.embed_tokens.weight": ("model.embed_tokens.weight", "model.embed_tokens.additional_embedding.weight"),
    "language.lm_head.weight": ("lm_head.weight", "lm_head.additional_fc.weight"),
}


def in_one_file_each(start: Path) -> dict[str, torch.Tensor]:
    """Write each weight of a model to a file of its own, in the reverse order, and return all weights."""
    tensors = load_file(start / "model.safetensors")
    places = {name: f"model-{number}.safetensors" for number, name in enumerate(reversed(tensors))}
    for name, place in places.items():
        save_file({name: tensors[name]}, start / place)
    (start / "model.safetensors").unlink()
    (start / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return tensors


@pytest.mark.parametrize("tied", [False, True], ids=["with an output layer", "tied"])
def test_divided_tables_are_joined_though_their_parts_are_in_different_files(tied: bool, tmp_path: Path) -> None:
    start = write_published(FLOAT, tmp_path / "start")
    if tied:
        edit_json(start / "config.json", tie_word_embeddings=True)
        words = load_file(start / "model.safetensors")
        kept = {name: tensor for name, tensor in words.items() if not name.startswith("lm_head.")}
        save_file(kept, start / "model.safetensors", metadata={"format": "pt"})
    there, model = in_one_file_each(start), loaded(start)
    assert (model.lm_head.weight is model.language.get_input_embeddings().weight) == tied
    for ours, (first, last) in list(TABLES.items())[: 1 if tied else 2]:
        assert torch.equal(model.state_dict()[ours], torch.cat([there[first], there[last]]))
    save_published(model, tmp_path / "again")
    again = dict(Published(str(tmp_path / "again")).weights())
    assert again.keys() == there.keys() and all(torch.equal(again[name], there[name]) for name in there)


def test_a_table_with_too_few_rows_for_the_recipe_is_named(tmp_path: Path) -> None:
    start = write_published(FLOAT, tmp_path)
    recipe = model_of(str(start))
    recipe.language["hf_causal"]["config"]["vocab_size"] = 384
    message = r"language: the weight 'lm_head\.weight' has the shape \(320, 32\), but the model needs \(384, 32\)"
    model = build_model(recipe)
    with pytest.raises(ValueError, match=message):
        fill_from_published(model, str(start), weight_places(model))


def test_a_model_that_transformers_freezes_is_loaded_and_its_export_is_not_frozen(tmp_path: Path) -> None:
    start = write_published(VECTOR, tmp_path / "start")
    frozen = {"freeze_text_layers": True, "freeze_vision_layers": True, "freeze_lm_head": True}
    edit_json(start / "config.json", **frozen, freeze_text_module_exceptions=["LayerNorm"])
    model = loaded(start)
    save_published(model, tmp_path / "again")
    start_model, again = (IdeficsForVisionText2Text(Published(str(folder)).config) for folder in (start, tmp_path / "again"))
    assert not any(weight.requires_grad for weight in start_model.model.vision_model.parameters())
    assert all(weight.requires_grad for one in (model, again) for weight in one.parameters())


@pytest.mark.parametrize("place", ["first", "second"])
def test_logits_of_a_chat_with_images_in_any_turn_equal_those_of_transformers(place: str, tmp_path: Path) -> None:
    model = loaded(write_published(VECTOR, tmp_path / "start"))
    save_published(model, tmp_path / "export")
    theirs = IdeficsForVisionText2Text.from_pretrained(tmp_path / "export", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "export")
    processor.image_processor = AutoImageProcessor.from_pretrained(tmp_path / "export", backend="pil")
    said = {"first": f"{IMAGE_MARK}{IMAGE_MARK}\nWhich is red?", "second": "Who are you?"}
    asked = {"first": "Why?", "second": f"And this:\n{IMAGE_MARK}\n{IMAGE_MARK}\nWhich?"}
    messages = [
        {"role": "user", "content": said[place]}, {"role": "assistant", "content": "The last one."},
        {"role": "user", "content": asked[place]},
    ]  # fmt: skip
    batch = build_batch(
        [Ready(prompter_of(model).question(messages, [png(0), png(1)]), "", "")], model.plan, 0, packed_tokens=None, broken={}
    )
    text = prompter_of(model).template.render(messages, add_generation_prompt=True).removeprefix(model.tokenizer.bos_token)
    inputs = processor(text=[texts_and_images(text, [picture(0), picture(1)])], return_tensors="pt")
    assert inputs["input_ids"].tolist() == batch.input_ids.tolist()
    with torch.no_grad():
        logits = theirs(**inputs).logits
        assert (model.logits(batch) - logits).abs().max() < 1e-5 * logits.abs().max()


def test_pixels_equal_those_of_the_exported_image_processor(tmp_path: Path) -> None:
    model = loaded(write_published(FLOAT, tmp_path / "start"))
    save_published(model, tmp_path / "export")
    for folder in ("start", "export"):
        processor = AutoImageProcessor.from_pretrained(tmp_path / folder, backend="pil")
        for number in range(3):
            ours = model.preprocess(np.asarray(picture(number))).pixels
            raw = processor([picture(number)], do_rescale=False, do_normalize=False, return_tensors="pt")
            assert torch.equal(ours, raw)


def test_buffers_that_older_versions_of_transformers_saved_are_left_out(tmp_path: Path) -> None:
    start = write_published(FLOAT, tmp_path)
    before, tensors = loaded(start).state_dict(), load_file(start / "model.safetensors")
    old = {"model.vision_model.embeddings.position_ids": torch.arange(17)[None]}
    old |= {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(2)}
    save_file(tensors | old, start / "model.safetensors", metadata={"format": "pt"})
    _, info = IdeficsForVisionText2Text.from_pretrained(start, output_loading_info=True)
    assert not info["unexpected_keys"]
    after = loaded(start).state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in after)


def test_an_idefics_with_another_activation_is_refused(tmp_path: Path) -> None:
    start = write_published(FLOAT, tmp_path)
    edit_json(start / "config.json", hidden_act="gelu")
    with pytest.raises(RecipeError, match=r"fusion: the layers of .* must have the activation silu, not gelu"):
        model_of(str(start))


def test_a_model_of_the_shipped_recipe_is_exported_and_starts_a_run(tmp_path: Path) -> None:
    recipe = tiny_parts("idefics")
    tokenizer_of(None).save_pretrained(tmp_path / "tokenizer")  # begins each text with BOS, as Llama's does
    recipe.language["hf_causal"]["tokenizer"] = str(tmp_path / "tokenizer")
    model = build_model(recipe)
    assert format_of(model).title == "Idefics 1"
    save_published(model, tmp_path / "export")
    again = loaded(tmp_path / "export").state_dict()
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[name], weight) for name, weight in model.state_dict().items())
