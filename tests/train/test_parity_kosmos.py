"""Kosmos-2 as a whole model equals transformers, and its decoder packs, pads, generates and learns as other decoders do."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration
from transformers.utils import logging

from tests.train.made_kosmos import KOSMOS
from tests.train.parity import (
    VISION,
    assert_packed_equals_separate,
    assert_same_gradients,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_own_shapes,
    packed,
    randomised,
)
from tests.train.published import write_published
from tests.train.tiny import TINY, pack, sample, tiny_model
from vlmdata_train.convert.families.kosmos2 import Kosmos2 as Family
from vlmdata_train.convert.published import Published
from vlmdata_train.convert.save_published import format_of
from vlmdata_train.data.document import Document
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.languages.kosmos2 import PATCHES, TAGS, Kosmos2
from vlmdata_train.model.batch import IGNORE, Batch
from vlmdata_train.model.head import Head
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.pixels import normalise
from vlmdata_train.model.tokens import byte_tokenizer

TEXT: dict[str, Any] = {  # the table of positions has fewer rows than the texts have tokens, and must grow
    "vocab_size": 1344, "embed_dim": 24, "layers": 3, "ffn_dim": 32, "attention_heads": 3, "max_position_embeddings": 257,
}  # fmt: skip
RECIPE = ModelRecipe(
    encoder={"hf_vision": {
        "config": {"model_type": "clip_vision_model", **VISION, "hidden_act": "quick_gelu"}, "layer": -1, "norm": True,
        "tokens": "all",
    }},
    abstractor={"kosmos_resampler": {"queries": 5, "head_width": 8}}, language={"kosmos2": {"config": TEXT}},
    writing={"between": {"start": "<image>", "end": "</image> ", "image_token": "<feature>"}},
)  # fmt: skip
rename = Family().our_name


def both(tied: bool = True) -> tuple[VisionLanguageModel, Any]:
    """Return our model and transformers' with the same random weights."""
    text = {**TEXT, "tie_word_embeddings": tied}
    config = Kosmos2Config(
        vision_config=VISION, text_config={**text, "pad_token_id": byte_tokenizer().pad_token_id}, latent_query_num=5,
        tie_word_embeddings=tied,
    )  # fmt: skip
    reference = randomised(Kosmos2ForConditionalGeneration(config))
    return copy_weights(reference, replace(RECIPE, language={"kosmos2": {"config": text}}), rename), reference


def logits_of(reference: Any, batch: Batch, image_token_id: int, pixels: Any) -> torch.Tensor:
    """Return the reference's logits for one sample, whose features have other ids, as in its processor."""
    is_feature = batch.input_ids == image_token_id
    ids = torch.where(is_feature, 4 + is_feature.cumsum(1), batch.input_ids)
    pixels = normalise(torch.stack(list(pixels)), (0.5,) * 3, (0.5,) * 3, torch.float32)
    return reference(input_ids=ids, pixel_values=pixels, image_embeds_position_mask=is_feature).logits


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_kosmos_2_equals_transformers_with_gradients(tied: bool) -> None:
    model, reference = both(tied)
    assert model.head == Head() and (model.lm_head.weight is model.language.get_input_embeddings().weight) == tied
    for sizes in ([(40, 60)], [(40, 60), (33, 20)]):
        batch = of_own_shapes(model, sizes)
        answers = partial(logits_of, reference, batch, model.image_token_id)
        assert_same_logits_and_images_matter(model, batch, answers)
        model.zero_grad()
        reference.zero_grad()
        model.logits(batch).square().mean().backward()
        answers(batch.pixels).square().mean().backward()
        assert_same_gradients(model, reference, rename)


def test_a_text_without_an_image_equals_transformers() -> None:
    model, reference = both()
    batch = pack(model, [([5, 6, 7, 8, 9, 10], torch.zeros(0, 3, 32, 32))])
    with torch.no_grad():
        expected = reference.text_model(input_ids=batch.input_ids).logits
        assert (model.logits(batch) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_packed_samples_and_their_gradients_equal_separate_ones() -> None:
    model, _ = both()
    samples = [of_own_shapes(model, sizes, seed) for seed, sizes in enumerate([[(40, 60)], [(20, 33), (50, 31)], [(64, 20)]])]
    assert_packed_equals_separate(model, samples)
    model(packed(model, samples)).square().sum().backward()
    together = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    for one in samples:
        model(one).square().sum().backward()
    for name, weight in model.named_parameters():
        assert (together[name] - weight.grad).abs().max() < 1e-5 * max(1.0, float(weight.grad.abs().max())), name


def test_the_positions_of_each_sample_begin_after_that_of_padding() -> None:
    model, _ = both()
    decoder, seen = model.language.base_model, []
    decoder.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    batch = pack(model, [([7, 8, 9], torch.zeros(0, 3, 32, 32)), ([7, 8], torch.zeros(0, 3, 32, 32))])
    with torch.no_grad():
        model(batch)
        scaled = decoder.embed_tokens(batch.input_ids) * TEXT["embed_dim"] ** 0.5
    first = byte_tokenizer().pad_token_id + 1
    rows = decoder.embed_positions.get_embedding(first + 3, TEXT["embed_dim"])[first:]
    assert torch.equal(seen[0], scaled + rows[[0, 1, 2, 0, 1]])


def test_weights_of_16_bits_give_hidden_states_of_16_bits() -> None:
    model, _ = both()
    batch = of_own_shapes(model, [(40, 60)])
    with torch.no_grad():
        exact, found = model(batch), model.to(torch.bfloat16)(batch)
    assert found.dtype == torch.bfloat16 and (exact - found).abs().max() < 0.1 * exact.abs().max()


def test_dropout_acts_in_training_and_dropout_of_attention_does_not() -> None:
    def differs(dropout: float) -> bool:
        options = {"dropout": dropout, "attention_dropout": 0.5}
        model = tiny_model(replace(TINY, language={"kosmos2": {"config": {**TEXT, **options}}})).train()
        batch = pack(model, [sample(model, 9, 1, 0)])
        return not torch.equal(model(batch), model(batch))

    assert differs(0.1) and not differs(0.0)


@pytest.mark.whole
def test_the_decoder_of_a_published_kosmos_2_is_loaded_by_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_published("Kosmos-2", tmp_path)
    part = Kosmos2(name=str(folder))
    tokenizer = part.load_tokenizer(image="<mask>")
    theirs = {
        name.removeprefix("text_model."): value
        for name, value in Published(str(folder)).weights()
        if name.startswith("text_model.")
    }
    logging.add_handler(caplog.handler)
    ours = part.build(tokenizer).state_dict()
    logging.remove_handler(caplog.handler)
    assert caplog.text == ""  # transformers would list the weights of the other parts
    assert ours.keys() - theirs.keys() == {"lm_head.weight"} and part.width() == 32
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    tokenizer.add_tokens(["<one>", "<more>"])
    grown = part.build(tokenizer)
    assert len(grown.get_input_embeddings().weight) == 1216 and grown.lm_head.weight is grown.get_input_embeddings().weight


def test_tokens_of_grounded_text_are_learned_and_tokens_around_images_stay_text() -> None:
    model = tiny_model(RECIPE)
    said = "<grounding><phrase>a dog</phrase><object><patch_index_0044><patch_index_0863></object> <image>"
    prompt = prompter_of(model).plain(Document([(32, 32), said], None))
    learned = model.tokenizer.convert_ids_to_tokens([label for label in prompt.labels if label != IGNORE])
    names = ["<grounding>", "<phrase>", "</phrase>", "<object>", "<patch_index_0044>", "<patch_index_0863>", "</object>"]
    assert [name for name in learned if name in {*TAGS, *PATCHES}] == names
    batch = pack(model, [(prompt.input_ids, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))])
    model.logits(batch).square().sum().backward()
    gradient = model.language.get_input_embeddings().weight.grad
    assert all(gradient[model.tokenizer.convert_tokens_to_ids(name)].any() for name in names)


def test_the_ids_of_grounded_text_equal_those_of_the_processor(tmp_path: Path) -> None:
    folder = write_published("Kosmos-2", tmp_path)
    model = build_model(Family().recipe(Published(str(folder))))
    said = "<grounding> An image of<phrase> a dog</phrase>"
    written = f"{said}<object><patch_index_0044><patch_index_0863></object>"
    prompt = prompter_of(model).plain(Document([(32, 32), written], None))
    made = KOSMOS["Kosmos-2"]
    inputs = made.processor(made.tokenizer())(
        text=said, images=Image.new("RGB", (32, 32)), bboxes=[(44, 863)], add_eos_token=True
    )
    pairs = zip(inputs["input_ids"], inputs["image_embeds_position_mask"], strict=True)
    assert prompt.input_ids == [model.image_token_id if is_feature else number for number, is_feature in pairs]
    assert sum(inputs["image_embeds_position_mask"]) == 64


def test_the_chat_template_writes_the_prompt_of_the_processor(tmp_path: Path) -> None:
    recipe = Family().recipe(Published(str(write_published("Kosmos-2", tmp_path))))
    tokenizer = KOSMOS["Kosmos-2"].tokenizer()
    tokenizer.chat_template = recipe.language["kosmos2"]["chat_template"]
    asked = [{"role": "system", "content": "<grounding>"}, {"role": "user", "content": "What is it?"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text == "<grounding> Question: What is it? Answer:"
    assert tokenizer.apply_chat_template(asked[1:], tokenize=False) == KOSMOS["Kosmos-2"].prompt


def test_no_other_format_holds_the_decoder() -> None:
    model = tiny_model(replace(TINY, language=RECIPE.language))
    with pytest.raises(ValueError, match=r"^language: LLaVA's format supports only a language model of Auto"):
        format_of(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": {**TEXT, "pad_token_id": 5}}, "pad_token_id is 5, and the tokenizer's padding token is <|pad|>"),
        ({"config": {**TEXT, "model_type": "llama"}}, "model_type must be kosmos_2_text_model, not llama"),
        ({"config": {**TEXT, "max_position_embeddings": 256}}, "max_position_embeddings must be 257 or more, not 256"),
        ({"config": {"layer": 3}}, "has no field 'layer'. Did you mean 'layers'?"),
        ({}, "set exactly one of name"),
    ],
)
def test_settings_that_do_not_fit_the_decoder_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("|", r"\|").replace("?", r"\?")):
        build_model(replace(RECIPE, language={"kosmos2": options}))
