"""A training run applies stored views to its images, without a change of lengths, and only in training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.inputs.tars import jpeg, write_tar
from tests.train.runs import made_model, tiny_recipe
from tests.train.shards import drawing
from vlmdata.images.augmentations import Operation, apply
from vlmdata.images.decode import decode
from vlmdata.step import RecipeError
from vlmdata_train.data import open_feed
from vlmdata_train.data.augmented import with_augmentation
from vlmdata_train.data.collate import pixels_of, size_of
from vlmdata_train.data.document import AugmentedPicture
from vlmdata_train.data.read_document import read_document
from vlmdata_train.distributed import Ranks
from vlmdata_train.model.model import VisionLanguageModel

FLIP = ["hflip"]
TURN = ["rotate 9.5"]
RANKS = Ranks(0, 1, torch.device("cpu"))


def picture(number: int) -> bytes:
    pixels = drawing("red", "square")
    pixels[:20, : 4 + number] = 0  # so that a flip shows
    return jpeg(pixels)


def write(folder: Path, count: int = 12, **scores: Any) -> str:
    made = [
        {"__key__": f"{n}", "jpg": picture(n), "txt": b"a red square", "json": json.dumps({"scores": scores}).encode()}
        for n in range(count)
    ]
    write_tar(folder / "0.tar", made)
    return str(folder)


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    recipe = tiny_recipe("unused", "unused")
    return made_model(recipe, recipe.model, RANKS)


def pixels_by_key(data: str, model: VisionLanguageModel, augment: str | None, epochs: int = 1) -> list[tuple[str, bytes, int]]:
    """Return the key, the pixels and the number of tokens of each sample of a feed."""
    recipe = tiny_recipe(data, "unused", batches={"pack": False, "samples": 1, "sample_tokens": 96})
    feed = open_feed.feed_of(recipe, model, data, RANKS, seed=3, epochs=epochs, augment=augment)
    return [(batch.keys[0], np.asarray(batch.pixels).tobytes(), batch.input_ids.shape[1]) for batch, _ in feed]


@pytest.mark.whole
def test_a_feed_shows_stored_views_and_keeps_the_lengths(tmp_path: Path, model: VisionLanguageModel) -> None:
    data = write(tmp_path, augment=[FLIP, TURN])
    plain = pixels_by_key(data, model, None)
    shown = pixels_by_key(data, model, "augment", epochs=2)
    assert len(shown) == 24 and [one[::2] for one in shown[:12]] == [one[::2] for one in plain]
    assert all(one[1] != other[1] for one, other in zip(shown, plain, strict=False)), "every image is changed"
    first, second = dict(one[:2] for one in shown[:12]), dict(one[:2] for one in shown[12:])
    assert 0 < sum(first[key] != second[key] for key in first) < 12, "another epoch draws again"
    assert pixels_by_key(data, model, "augment", epochs=2) == shown


@pytest.mark.whole
def test_data_without_stored_views_is_one_clear_mistake(tmp_path: Path, model: VisionLanguageModel) -> None:
    with pytest.raises(
        RecipeError, match=r"augment: the data has no stored augmentations named 'views'. Build it with the step"
    ):
        pixels_by_key(write(tmp_path, augment=[FLIP]), model, "views")


@pytest.mark.whole
def test_held_out_samples_are_not_augmented(tmp_path: Path, model: VisionLanguageModel) -> None:
    recipe = tiny_recipe(write(tmp_path, augment=[FLIP]), "unused", augment="augment", held_out={"fraction": 0.5})
    train, held_out = open_feed.make_feeds(recipe, model, RANKS)
    assert train.reading.augment == "augment" and held_out is not None and held_out.reading.augment is None


def test_an_augmented_picture_has_the_size_of_the_image_and_the_pixels_of_its_view() -> None:
    data, operations = picture(3), (Operation("hflip"), Operation("rotate", (9.5,)))
    made = AugmentedPicture(data, operations)
    assert size_of(made) == size_of(data) == (48, 48)
    assert np.array_equal(pixels_of(made), apply(decode(data).pixels, operations))
    assert np.array_equal(pixels_of(data), decode(data).pixels)


def test_images_of_documents_are_augmented_and_sizes_stay_for_measuring() -> None:
    facts = {"texts": [None, "a"], "metadata": [{"file": "0.jpg"}, None], "scores": {"augment": [[FLIP], None]}}
    sample = {"__key__": "k", "__seed__": 1, "0.jpg": picture(1), "json": json.dumps(facts).encode()}
    document = read_document(with_augmentation(sample, "augment"))
    assert document.positions == [AugmentedPicture(picture(1), (Operation("hflip"),)), "a"]
    measured = {**sample, "0.jpg": (48, 48)}
    assert with_augmentation(measured, "augment") == measured and with_augmentation(sample, None) is sample


def test_a_sample_with_boxes_in_its_texts_keeps_the_operations_that_move_nothing() -> None:
    facts = {"grounding": {"task": "mention", "spans": []}, "scores": {"augment": [["hflip", "brightness 1.3"]]}}
    sample = {"__key__": "k", "__seed__": 1, "jpg": picture(1), "txt": b"a", "json": json.dumps(facts).encode()}
    assert with_augmentation(sample, "augment")["jpg"] == AugmentedPicture(picture(1), (Operation("brightness", (1.3,)),))
