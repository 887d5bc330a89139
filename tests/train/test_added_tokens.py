"""Features that are added to image tokens, whose images see each other as in Molmo 2 or not as in Molmo."""

from dataclasses import replace

import pytest
import torch

from tests.train.parity import assert_generation_equals_forward, assert_packed_equals_separate, of_own_shapes
from tests.train.test_parity_molmo import IMAGE_IDS, PATCH, RECIPE, SIZES
from tests.train.tiny import tiny_model

MOLMO_2, MOLMO = RECIPE, replace(RECIPE, fusion="added_tokens")


@pytest.mark.parametrize("backend", ["segments", "flex"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_images_that_see_each_other_pack_exactly(backend: str) -> None:
    model = tiny_model(MOLMO_2)
    model.attention = backend
    assert_packed_equals_separate(model, [of_own_shapes(model, SIZES[:2], 0), of_own_shapes(model, SIZES[2:], 1)])


@pytest.mark.parametrize("two_way", [True, False])
def test_all_tokens_of_the_first_image_see_the_second_and_text_before_does_not(two_way: bool) -> None:
    model = tiny_model(MOLMO_2 if two_way else MOLMO)
    batch = of_own_shapes(model, SIZES[:2])
    changed = replace(batch, pixels=[255 - tile if number >= 2 else tile for number, tile in enumerate(batch.pixels)])
    places = torch.isin(batch.input_ids[0], IMAGE_IDS).nonzero()[:, 0]
    first = places[: int((places.diff() > 1).nonzero()[0]) + 1]
    assert batch.tile_counts[0] == 2
    assert len(first) == 18 + 2 * 3 + 2 * 2, "features, row ends, starts and ends"
    with torch.no_grad():
        moved = (model.logits(batch) - model.logits(changed))[0].abs().amax(-1) > 1e-4
    assert not moved[: first[0]].any()
    assert moved[first].all() if two_way else not moved[first].any()


def test_a_kernel_that_cannot_let_tokens_see_later_ones_is_refused() -> None:
    model = tiny_model(MOLMO_2)
    model.attention = "varlen"
    with pytest.raises(ValueError, match="this fusion lets tokens attend to later ones, which the backend `varlen`"):
        model.logits(of_own_shapes(model, SIZES[:1]))


def test_generation_reads_images_in_both_directions() -> None:
    model = tiny_model(MOLMO_2)
    assert_generation_equals_forward(model, of_own_shapes(model, SIZES[:2]))


def test_molmo_adds_features_and_has_causal_attention() -> None:
    model = tiny_model(MOLMO)
    batch = of_own_shapes(model, SIZES[:1])
    words = model.language.get_input_embeddings()(batch.input_ids)
    features, _ = model.encode_images(batch)
    places = batch.input_ids[0] == PATCH
    with torch.no_grad():
        added = model.embed(batch, None)[0]
    assert model.two_way_of(batch) is None
    assert torch.equal(added[places], words[0, places] + features)
    assert torch.equal(added[~places], words[0, ~places])
