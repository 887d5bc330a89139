"""Pixtral: images of their own shape with row ends; the same weights give the logits of LLaVA over Pixtral's tower."""

import random
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import LlavaConfig, LlavaForConditionalGeneration, MistralConfig, PixtralVisionConfig
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from tests.train.parity import (
    IMAGE_ID,
    TEXT,
    answers_of,
    assert_packed_equals_separate,
    assert_same_logits_and_images_matter,
    copy_weights,
    of_own_shapes,
    randomised,
    renamed,
)
from tests.train.tiny import pack, randomise
from vlmdata_train.model import ModelRecipe, build_model
from vlmdata_train.pixels import normalise

VISION = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64,
          "patch_size": 8, "head_dim": 8}  # fmt: skip
BREAK_ID, END_ID = 270, 271
SIZES = [(50, 90), (8, 30)]
RECIPE = ModelRecipe(
    encoder={"pixtral": {"config": VISION}}, preprocessing={"longest_edge": {"longest": 64}}, abstractor="mlp",
    language={"hf_causal": {"config": {"model_type": "mistral", **TEXT}}},
)  # fmt: skip
NAMES = {
    "model.vision_tower.": "encoder.model.", "model.multi_modal_projector.linear_1.": "abstractor.0.",
    "model.multi_modal_projector.linear_2.": "abstractor.2.", "model.language_model.": "language.model.",
    "lm_head.": "language.lm_head.",
}  # fmt: skip


def test_pixtral_on_two_images_of_their_own_shapes_with_the_ends_of_their_rows() -> None:
    config = LlavaConfig(
        vision_config=PixtralVisionConfig(**VISION), text_config=MistralConfig(**TEXT), image_token_id=IMAGE_ID,
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    reference = randomised(LlavaForConditionalGeneration(config))
    words = reference.get_input_embeddings().weight
    # What the reference reads as text tokens between the rows stands in our arrangement of the image.
    ends = {"arrangement.newline": words[BREAK_ID], "arrangement.end": words[END_ID]}
    extended = torch.nn.Module()
    extended.state_dict = lambda: {**reference.state_dict(), **ends}  # type: ignore[method-assign,assignment,return-value]
    model = copy_weights(extended, RECIPE, renamed(NAMES))
    batch = of_own_shapes(model, SIZES)
    sides = [model.plan.preprocessing.tile_size(width, height, model.plan.facts) for height, width in SIZES]
    assert sides == [(40, 64), (8, 32)] and batch.image_token_counts.tolist() == [5 * 9, 1 * 5]

    theirs_ids = batch.input_ids.clone()
    places = (theirs_ids[0] == IMAGE_ID).nonzero()[:, 0].split(batch.image_token_counts.tolist())
    for own, (_, columns) in zip(places, sides, strict=True):
        rows = own.view(-1, columns // 8 + 1)
        theirs_ids[0, rows[:, -1]] = BREAK_ID
        theirs_ids[0, rows[-1, -1]] = END_ID

    answers = answers_of(reference, replace(batch, input_ids=theirs_ids), image_sizes=torch.tensor(sides))

    def theirs(tiles: list[torch.Tensor]) -> torch.Tensor:
        facts, most = model.plan.facts, [max(side) for side in zip(*sides, strict=True)]
        pixels = [normalise(tile[None], facts.mean, facts.std, torch.float32) for tile in tiles]
        padded = [functional.pad(p, (0, most[1] - p.shape[3], 0, most[0] - p.shape[2])) for p in pixels]
        return answers(torch.cat(padded))

    assert_same_logits_and_images_matter(model, batch, theirs)


def test_packed_equals_separate_and_every_weight_has_a_gradient_also_of_images_of_one_row() -> None:
    model = build_model(RECIPE)
    randomise(model)
    one, other = of_own_shapes(model, SIZES, seed=1), of_own_shapes(model, [(8, 8)], seed=2)
    assert_packed_equals_separate(model, [one, other])
    for batch in (other, pack(model, [([5, 6, 7], torch.zeros(0, 3, 8, 8))])):
        model.zero_grad()
        model.train()(batch).square().sum().backward()
        assert [name for name, weight in model.named_parameters() if weight.grad is None and "lm_head" not in name] == []


def test_sizes_and_pixels_are_those_of_pixtral() -> None:
    model, rng = build_model(RECIPE), random.Random(0)
    processor = PixtralImageProcessorPil(
        patch_size={"height": 8, "width": 8}, size={"longest_edge": 64}, do_rescale=False, do_normalize=False
    )
    for _ in range(60):
        height, width = rng.randint(1, 150), rng.randint(1, 150)
        if max(height, width) > 64 * min(height, width):  # where theirs is left with a side of nothing
            continue
        image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        theirs = processor(images=Image.fromarray(image), return_tensors="pt")["pixel_values"][0].to(torch.uint8)
        prepared = model.preprocess(image)
        assert torch.equal(prepared.pixels[0], theirs)
        assert prepared.tokens == theirs.shape[1] // 8 * (theirs.shape[2] // 8 + 1)
    assert model.plan.preprocessing.tile_size(10_000, 1, model.plan.facts) == (8, 64)
