"""PaliGemma, with full attention over image and prompt, gives the logits of its class in transformers with the same weights."""

from dataclasses import replace

import pytest
import torch
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    VISION,
    answers_of,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_squares,
    randomised,
)
from tests.train.tiny import LLAMA, TINY, pack, sample, tiny_model
from vlmdata_train.convert.families.paligemma import PaliGemma
from vlmdata_train.model.attention import segment_block_mask
from vlmdata_train.model.generate import generate
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.model.parts import make_part

TOWER = {"model_type": "siglip_vision_model", **VISION, "vision_use_head": False}
GEMMA = {"model_type": "gemma", **TEXT, "head_dim": 8}
PREFIX = replace(TINY, fusion={"tokens": {"prefix": True}})
WINDOWS = replace(
    PREFIX, language={"hf_causal": {"config": {**LLAMA, "model_type": "gemma2", "head_dim": 8, "sliding_window": 12}}}
)
UNTIL_IMAGES = replace(TINY, fusion={"tokens": {"prefix": "images"}})


def test_paligemma_equals_transformers() -> None:
    config = PaliGemmaConfig(vision_config=TOWER, text_config=GEMMA, image_token_id=IMAGE_ID, projection_dim=32)
    reference = randomised(PaliGemmaForConditionalGeneration(config))
    recipe = ModelRecipe(
        encoder={"hf_vision": {"config": TOWER, "layer": -1, "norm": True}}, abstractor="linear",
        fusion={"tokens": {"prefix": True}}, language={"hf_causal": {"config": GEMMA}},
    )  # fmt: skip
    # here the fusion defines which earlier positions see it
    model = copy_weights(reference, recipe, PaliGemma().our_name, unlike=["use_bidirectional_attention"])
    batch = of_squares([16])
    labels = batch.labels.clone()
    labels[:, :25] = -100  # 6 words, the image, 3 words, then 3 tokens of answer
    batch = replace(batch, labels=labels)
    answers = answers_of(reference, batch, token_type_ids=(labels != -100).long())
    assert_same_logits_and_images_matter(model, batch, answers)


@pytest.mark.parametrize("recipe", [PREFIX, WINDOWS], ids=["whole past", "windows"])
@pytest.mark.parametrize("backend", ["segments", "flex"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_packed_equals_separate_and_prefix_tokens_see_later_prefix_tokens(backend: str, recipe: ModelRecipe) -> None:
    model = tiny_model(recipe)
    model.attention = backend
    samples = [sample(model, 150, 1, 1), sample(model, 9, 1, 2)]
    lengths = [len(ids) for ids, _ in samples]
    batches = [pack(model, samples), *(pack(model, [one]) for one in samples)]
    for batch, starts in zip(batches, ([0, lengths[0]], [0], [0]), strict=True):
        for start in starts:
            batch.labels[0, start : start + 20] = -100
    with torch.no_grad():
        together, first, second = (model.logits(batch)[0] for batch in batches)
        assert (together[: lengths[0]] - first).abs().max() < 1e-5
        assert (together[lengths[0] :] - second).abs().max() < 1e-5
        causal = replace(batches[1], labels=batches[1].input_ids)
        assert (model.logits(causal)[0, :19] - first[:19]).abs().max() > 0.01, "without a prefix nothing is seen from before"


def test_a_prefix_until_the_images_ends_with_the_first_run_of_image_tokens() -> None:
    """The numbers are segments, image tokens (9) and tokens of answers (5): an image, two images, none, and an answer first."""
    fusion = tiny_model(UNTIL_IMAGES).fusion
    segments = torch.tensor([[1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 4, 4, 4, 0]])
    texts = torch.tensor([[1, 9, 9, 1, 9, 9, 9, 1, 9, 5, 1, 1, 1, 5, 9, 0]])
    ids = torch.where(texts == 9, fusion.image_token_id, texts)
    labels = torch.where(texts == 5, ids, -100)
    found = fusion.two_way_of(labels, segments, ids)
    assert found is not None
    assert found[0].int().tolist() == [1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0]


def test_a_prefix_until_the_images_packs_exactly_and_leaves_the_question_causal() -> None:
    model = tiny_model(UNTIL_IMAGES)
    ids, pixels = sample(model, 12, 1, 1)  # one token, 16 of the image, 11 of the question
    other = sample(model, 9, 1, 2)
    batches = [pack(model, [(ids, pixels), other]), pack(model, [(ids, pixels)]), pack(model, [([*ids[:-1], 3], pixels)])]
    for batch in batches:
        batch.labels.fill_(-100)
    with torch.no_grad():
        together, alone, changed = (model.logits(batch)[0] for batch in batches)
        causal = tiny_model(TINY).logits(batches[1])[0]
    assert (together[: len(ids)] - alone).abs().max() < 1e-5
    assert (alone[: len(ids) - 1] - changed[: len(ids) - 1]).abs().max() < 1e-6, "no token sees a later token of the question"
    assert (alone[0] - causal[0]).abs().max() > 0.01, "the first token sees the image"


def test_an_unknown_prefix_is_refused() -> None:
    with pytest.raises(Exception, match="prefix must be true, false or images, not 'image'"):
        make_part("fusion", {"tokens": {"prefix": "image"}})


def test_no_token_sees_a_later_answer_token() -> None:
    model = tiny_model(PREFIX)
    ids, pixels = sample(model, 12, 1, 1)
    batches = [pack(model, [(ids, pixels)]), pack(model, [([*ids[:25], 3, 4, 5], pixels)])]
    for batch in batches:
        batch.labels[0, :25] = -100
    with torch.no_grad():
        one, other = (model.logits(batch)[0, :25] for batch in batches)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("recipe", [PREFIX, WINDOWS, UNTIL_IMAGES], ids=["all", "all, windows", "images"])
def test_generation_reads_the_prefix_in_both_directions(recipe: ModelRecipe) -> None:
    model = tiny_model(recipe)
    ids, pixels = sample(model, 12, 1, 1)
    batch = pack(model, [(ids, pixels)])
    batch.labels.fill_(-100)
    [new] = generate(model, batch, max_new_tokens=4, stop_ids=[])
    for step, number in enumerate(new):
        longer = pack(model, [([*ids, *new[:step]], pixels)])
        longer.labels[0, : len(ids)] = -100
        with torch.no_grad():
            values = model.logits(longer)[0, -1]
        values[[model.fusion.image_token_id, *range(len(model.tokenizer), len(values))]] = -torch.inf
        assert int(values.argmax()) == number


@pytest.mark.parametrize("window", [None, 5, 140])
@pytest.mark.parametrize("marks", [[(0, 200), (300, 310)], [(90, 100), (290, 305), (560, 570)]], ids=["prefix", "apart"])
def test_block_masks_hold_every_pair_that_sees_each_other(marks: list[tuple[int, int]], window: int | None) -> None:
    ids = torch.tensor([[1] * 300 + [2] * 300 + [0] * 30])
    two_way = torch.zeros(1, 630, dtype=torch.bool)
    for start, end in marks:
        two_way[0, start:end] = True
    mask = segment_block_mask(ids, window, two_way)
    gap = torch.arange(630)[:, None] - torch.arange(630)
    past = (gap >= 0) & (gap < (window or 630))
    expected = (ids[0][:, None] == ids[0]) & (past | (two_way[0][:, None] & two_way[0]))
    held, full = torch.zeros(2, 640, 640, dtype=torch.bool).unbind()
    for block in range(5):
        for chosen, count, index in (
            (held, mask.kv_num_blocks, mask.kv_indices), (full, mask.full_kv_num_blocks, mask.full_kv_indices),
        ):  # fmt: skip
            for column in index[0, 0, block, : count[0, 0, block]].tolist():
                chosen[block * 128 : block * 128 + 128, column * 128 : column * 128 + 128] = True
    assert not (full[:630, :630] & ~expected).any()
    assert torch.equal((held[:630, :630] & expected) | full[:630, :630], expected)
