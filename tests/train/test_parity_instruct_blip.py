"""InstructBLIP's Q-Former gives the logits and gradients of its class in transformers, and reads the ids of its processor."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    BlipImageProcessorPil,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from tests.train.bert import WORDS, bert_tokenizer
from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    VISION,
    assert_packed_equals_separate,
    assert_same_gradients,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_squares,
    randomised,
    renamed,
)
from tests.train.tiny import randomise
from vlmdata_train.abstractors.instruct_q_former import InstructQFormer
from vlmdata_train.model.batch import Batch
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.tokens import byte_tokenizer

QUESTIONS = ["What colour is it?", "How many are there? What?"]
Q_FORMER = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 30,
            "vocab_size": 5 + len(WORDS)}  # fmt: skip
OPT = {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 300,
       "word_embed_proj_dim": 32, "max_position_embeddings": 2048, "pad_token_id": 0, "dropout": 0.0}  # fmt: skip
LANGUAGES = {"llama": {"model_type": "llama", **TEXT}, "opt": {"model_type": "opt", **OPT}}
NAMES = renamed({
    "vision_model.": "encoder.model.", "language_model.": "language.", "qformer.": "abstractor.transformer.",
    "query_tokens": "abstractor.queries", "language_projection.": "abstractor.project.",
})  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a BERT tokenizer."""
    path = tmp_path_factory.mktemp("bert")
    bert_tokenizer().save_pretrained(path)
    return str(path)


def both(folder: str, language: str) -> tuple[VisionLanguageModel, Any]:
    """Return our model and the reference with the same weights."""
    config = InstructBlipConfig(
        vision_config=VISION, qformer_config=Q_FORMER, text_config=LANGUAGES[language], num_query_tokens=5,
        image_token_index=IMAGE_ID,
    )  # fmt: skip
    reference: Any = randomised(InstructBlipForConditionalGeneration(config))
    randomise(reference.qformer, scale=0.8)  # with smaller weights the question hardly matters
    part = {"tokenizer": folder, "queries": 5, "width": 24, "layers": 3, "heads": 2, "mlp_width": 30}
    recipe = ModelRecipe(
        encoder={"blip2": {"config": VISION}}, abstractor={"instruct_q_former": part},
        language={"hf_causal": {"config": LANGUAGES[language]}},
    )  # fmt: skip
    return copy_weights(reference, recipe, NAMES), reference


def asked(batch: Batch, ids: list[int]) -> Batch:
    """Return the batch of one sample with this question."""
    return replace(batch, questions=torch.tensor([ids]))


def samples(model: VisionLanguageModel) -> list[Batch]:
    """Return samples with two images and with one, whose questions have different lengths."""
    assert model.question_ids is not None
    return [asked(of_squares([5] * images), model.question_ids(text)) for images, text in zip((2, 1), QUESTIONS, strict=True)]


def theirs(reference: Any, batch: Batch, pixels: Any) -> torch.Tensor:
    """Return the reference's logits of one sample, all of whose images get its question."""
    ids = batch.questions.expand(len(pixels), -1)
    return reference(pixel_values=pixels, qformer_input_ids=ids, input_ids=batch.input_ids).logits


def test_logits_over_a_llama_equal_those_of_transformers_and_the_question_matters(folder: str) -> None:
    model, reference = both(folder, "llama")
    for batch in samples(model):
        assert_same_logits_and_images_matter(model, batch, partial(theirs, reference, batch))
        with torch.no_grad():
            other = asked(batch, [2, 15, 14, 6, 3])
            assert (model.logits(other) - model.logits(batch)).abs().max() > 0.01


def test_logits_over_an_opt_equal_those_of_transformers(folder: str) -> None:
    model, reference = both(folder, "opt")
    for batch in samples(model):
        with torch.no_grad():
            ours, wanted = model.logits(batch), theirs(reference, batch, batch.pixels)
        assert wanted.std() > 0.1 and (ours - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_packed_samples_with_questions_of_different_lengths_equal_separate_ones(folder: str) -> None:
    model, _ = both(folder, "llama")
    assert_packed_equals_separate(model, samples(model))


def test_gradients_of_all_weights_equal_those_of_transformers_with_padded_questions(folder: str) -> None:
    model, reference = both(folder, "llama")
    single, pixels = of_squares([5]), of_squares([5, 5]).pixels
    tokens = single.input_ids.expand(2, -1)
    ids = pad_sequence([batch.questions[0] for batch in samples(model)], True, padding_value=0)
    out = reference(pixel_values=pixels, qformer_input_ids=ids, qformer_attention_mask=(ids > 0).long(), input_ids=tokens)
    out.logits.square().sum().backward()
    batch = replace(
        of_squares([5, 5]), input_ids=tokens, labels=tokens, position_ids=single.position_ids.expand(2, -1),
        segment_ids=single.segment_ids.expand(2, -1), pixels=pixels, of_sample=torch.tensor([0, 1]),
        questions=ids.masked_fill(ids == 0, -1),
    )  # fmt: skip
    model.logits(batch).square().sum().backward()
    assert_same_gradients(model, reference, NAMES)


@pytest.mark.parametrize("text", ["", *QUESTIONS, "reddish [SEP] it"])
def test_ids_equal_those_of_the_processor(folder: str, text: str) -> None:
    processor = InstructBlipProcessor(BlipImageProcessorPil(), byte_tokenizer(), bert_tokenizer(), num_query_tokens=5)
    part = InstructQFormer(tokenizer=folder)
    assert part.question_ids(byte_tokenizer(), text) == processor(text=text)["qformer_input_ids"][0]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("most", [2, 3, 6, 7])
def test_a_long_question_is_cut_as_by_the_processor(tmp_path: Path, most: int, side: str) -> None:
    tokenizer = bert_tokenizer(truncation_side=side)
    tokenizer.save_pretrained(tmp_path)
    processor = InstructBlipProcessor(BlipImageProcessorPil(), byte_tokenizer(), tokenizer, num_query_tokens=0)
    wanted = processor(text=QUESTIONS[0], truncation=True, max_length=most)["qformer_input_ids"][0]
    part = InstructQFormer(tokenizer=str(tmp_path), max_question=most)
    assert part.question_ids(byte_tokenizer(), QUESTIONS[0]) == wanted


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(ValueError, match="max_question must be 1 or more and less than 513, not 513"):
        InstructQFormer(max_question=513)


def test_without_a_second_tokenizer_the_words_are_those_of_the_language_model(tmp_path: Path) -> None:
    part = InstructQFormer(max_question=4)
    assert part.question_ids(byte_tokenizer(), "What?") == byte_tokenizer()("What")["input_ids"]
    assert part.question_tokenizer() is None
