"""The whole model is built from names, depends on its images, and generates what the full forward pass gives."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.train.tiny import TINY, of_images, pack, rows, sample, tiny_model
from vlmdata.step import RecipeError
from vlmdata_train.model.decoding import Decoding
from vlmdata_train.model.generate import generate
from vlmdata_train.model.model import build_model, image_plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"abstractor": "mpl"}, "abstractor: there is no 'mpl'. Did you mean 'mlp'?"),
        ({"abstractor": {"mlp": {"layer": 2}}}, "no parameter 'layer'. Did you mean 'layers'?"),
        ({"abstractor": {"mlp": {"layers": 0}}}, "1 layer or more"),
        ({"fusion": {"tokens": {}, "cross_attention": {}}}, "one name with its parameters"),
        ({"encoder": {"open_clip": {"model": "ViT-Z-99"}}}, "open_clip has no model 'ViT-Z-99'"),
        ({"encoder": "no.such.Class"}, "cannot import 'no.such.Class'"),
    ],
)
def test_a_mistake_in_a_recipe_is_reported_before_anything_is_built(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message.replace("?", r"\?").replace("(", r"\(")):
        build_model(replace(TINY, **change))


def test_a_dotted_name_selects_a_part_of_the_user() -> None:
    model = build_model(replace(TINY, abstractor={"vlmdata_train.abstractors.linear.Linear": {"bias": False}}))
    assert [tuple(weight.shape) for weight in model.abstractor.parameters()] == [(32, 32)]


def test_the_logits_depend_on_the_images() -> None:
    model = tiny_model()
    ids, pixels = sample(model, 10, 1, seed=1)
    with torch.no_grad():
        seen, blanked = model.logits(pack(model, [(ids, pixels)])), model.logits(pack(model, [(ids, pixels * 0)]))
    assert (seen - blanked).abs().max() > 0.01


def test_each_image_fills_the_tokens_of_its_place() -> None:
    model = tiny_model()
    ids, pixels = sample(model, 12, 2, seed=1)
    features, counts = model.encode_images(pack(model, [(ids, pixels)]))
    assert counts == [16, 16]
    embedded = model.embed(pack(model, [(ids, pixels)]), None)[0]
    places = [place for place, token in enumerate(ids) if token == model.fusion.image_token_id]
    assert torch.equal(embedded[places], features)
    words = torch.tensor([token for token in ids if token != model.fusion.image_token_id])
    others = [place for place, token in enumerate(ids) if token != model.fusion.image_token_id]
    assert torch.equal(embedded[others], model.language.get_input_embeddings()(words))


def test_too_many_image_tokens_raise_an_error() -> None:
    model = tiny_model()
    ids, pixels = sample(model, 12, 1, seed=1)
    with pytest.raises(ValueError, match="the text has 17 image tokens, but there are 16 image features"):
        model(pack(model, [([*ids, model.fusion.image_token_id], pixels)]))


def test_every_weight_gets_a_gradient_which_is_zero_for_image_parts_of_a_text_batch() -> None:
    model = tiny_model().train()
    model.logits(pack(model, [sample(model, 10, 1, 1)])).square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
    model.zero_grad()
    model.logits(pack(model, [sample(model, 10, 0, 1)])).square().sum().backward()
    assert all(not weight.grad.any() for weight in model.encoder.parameters() if weight.grad is not None)
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_the_parts_hold_every_weight_once() -> None:
    model = tiny_model()
    held = [id(weight) for part in model.parts().values() for weight in part.parameters()]
    assert sorted(held) == sorted(id(weight) for weight in model.parameters())


def test_a_layer_that_is_not_used_is_kept_but_not_trained() -> None:
    model = tiny_model()
    assert "visual.transformer.resblocks.2.ln_1.weight" in model.encoder.state_dict()
    assert all("resblocks.2" not in name for name, _ in model.encoder.named_parameters())


def test_the_plan_can_be_pickled_and_gives_the_sizes_and_tokens_of_the_model() -> None:
    plan = pickle.loads(pickle.dumps(image_plan(TINY)))
    assert plan.tokens_of(640, 480) == 16
    prepared = plan.preprocess(np.zeros((48, 64, 3), np.uint8))
    assert (tuple(prepared.pixels.shape), prepared.pixels.dtype) == ((1, 3, 32, 32), torch.uint8)
    assert (prepared.tokens, prepared.size) == (16, (48, 64))


def test_generation_with_a_cache_equals_the_full_forward_for_any_row_length() -> None:
    model = tiny_model()
    (first, first_pixels), (second, second_pixels) = sample(model, 10, 1, 1), sample(model, 5, 2, 2)
    length = max(len(first), len(second))
    batch = rows(
        model,
        [ids + [0] * (length - len(ids)) for ids in (first, second)],
        [[*range(len(ids))] + [0] * (length - len(ids)) for ids in (first, second)],
        [[1] * len(ids) + [0] * (length - len(ids)) for ids in (first, second)],
        torch.cat([first_pixels, second_pixels]),
    )
    together = generate(model, batch, max_new_tokens=6, stop_ids=[])
    for prompt, pixels, new in ((first, first_pixels, together[0]), (second, second_pixels, together[1])):
        expected = list(prompt)
        for _ in range(6):
            with torch.no_grad():
                logits = model.logits(pack(model, [(expected, pixels)]))[0, -1]
            allowed = [n for n in range(len(model.tokenizer)) if n != model.fusion.image_token_id]
            expected.append(max(allowed, key=lambda n: float(logits[n])))
        assert new == expected[len(prompt) :]


def test_generation_stops_at_a_stop_token_and_leaves_it_out() -> None:
    model = tiny_model()
    batch = pack(model, [sample(model, 10, 1, 1)])
    [tokens] = generate(model, batch, max_new_tokens=6, stop_ids=[])
    assert generate(model, batch, max_new_tokens=6, stop_ids=[tokens[3]]) == [tokens[: tokens.index(tokens[3])]]


def test_sampling_is_repeatable_and_top_p_near_zero_is_greedy() -> None:
    model = tiny_model()
    batch = pack(model, [sample(model, 10, 1, 1)])

    def draw(top_p: float, seed: int) -> list[list[int]]:
        way = Decoding(temperature=1.0, top_p=top_p, seed=seed)
        return generate(model, batch, max_new_tokens=8, stop_ids=[], decoding=way)

    assert draw(1.0, 3) == draw(1.0, 3) != draw(1.0, 4)
    assert draw(1e-6, 3) == generate(model, batch, max_new_tokens=8, stop_ids=[])


def test_images_of_several_sizes_are_encoded_in_reading_order() -> None:
    model = tiny_model(replace(TINY, encoder={"tests.train.tiny.MeanColours": {}}))
    generator = torch.Generator().manual_seed(0)
    pixels = [torch.rand(3, *size, generator=generator) for size in ((8, 16), (16, 8), (8, 16), (16, 16))]
    batch = replace(pack(model, [sample(model, 10, 4, 5)]), pixels=pixels)
    features, counts = model.encode_images(batch)
    alone = [model.abstractor(model.encoder(each[None]))[0] for each in pixels]
    assert counts == [2, 2, 2, 4]
    torch.testing.assert_close(features, torch.cat(alone))


def test_images_keep_their_size_if_the_preprocessing_allows_it() -> None:
    model = tiny_model(replace(TINY, encoder={"raw_patches": {"patch_size": 8}}, preprocessing="native"))
    prepared = [model.preprocess(np.full((*size, 3), 90, np.uint8)) for size in ((20, 33), (8, 8))]
    assert [one.tokens for one in prepared] == [3 * 5, 1 * 1]
    ids = [token for one in prepared for token in [7] * 3 + [model.fusion.image_token_id] * one.tokens]
    batch = replace(
        pack(model, [(ids, torch.zeros(0, 3, 8, 8))]), pixels=[one.pixels[0] for one in prepared],
        tile_counts=torch.tensor([1, 1]), image_sizes=torch.tensor([one.size for one in prepared]), **of_images([0, 0], 2),
    )  # fmt: skip
    features, counts = model.encode_images(batch)
    assert counts == [15, 1] and len(features) == 16
    assert model.logits(batch).shape[1] == len(ids)
