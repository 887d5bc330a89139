"""GantMan's MobileNetV2 gives the probabilities of nsfwjs 4.3.0 in node, which tests/fixtures/make_nsfwjs.py wrote down."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.fixtures import fixture
from tests.real_data import real_data
from vlmdata.models.nsfw_mobilenet import NsfwMobileNet, squashed
from vlmdata.models.nsfwjs_folder import LABELS, RESIZES

ROOT = Path(__file__).parent.parent.parent


def stated(name: str) -> dict[str, list[list[float]]]:
    return json.loads(fixture(f"I_nsfwjs/{name}.json").read_text())


@pytest.fixture(scope="module")
def network() -> NsfwMobileNet:
    return NsfwMobileNet(str(fixture("I_nsfwjs/model")))


def differences(network: NsfwMobileNet, pictures: dict[Path, list[list[float]]]) -> list[float]:
    """Return the greatest differences of a probability: for pixels resized by Pillow, and for pictures resized as in nsfwjs."""
    found = []
    for kind, resize in enumerate(RESIZES):
        pixels = np.stack([squashed(Image.open(path).convert("RGB"), resize) for path in pictures])
        found.append(float(np.abs(network.forward(pixels) - np.array([rows[kind] for rows in pictures.values()])).max()))
    return found


def test_probabilities_of_fifty_pictures_are_those_of_nsfwjs_in_node(network: NsfwMobileNet) -> None:
    pictures = {ROOT / name: rows for name, rows in stated("probabilities").items()}
    assert len(pictures) == 50 and max(differences(network, pictures)) < 1e-4
    labels = {LABELS[int(np.argmax(rows[0]))] for rows in pictures.values()}
    assert {"drawings", "neutral"} <= labels  # else equal probabilities would say little


def test_probabilities_of_large_photos_are_those_of_nsfwjs_in_node(network: NsfwMobileNet) -> None:
    pictures = {real_data(name): rows for name, rows in stated("probabilities_of_large_photos").items()}
    assert len(pictures) == 25 and max(differences(network, pictures)) < 1e-4


def test_the_two_ways_to_resize_differ_on_large_photos() -> None:
    rows = np.array(list(stated("probabilities_of_large_photos").values()))
    assert np.abs(rows[:, 0] - rows[:, 1]).max() > 0.4


@pytest.mark.parametrize("size", [(500, 31), (1, 1), (224, 300), (2, 224), (225, 223)])
def test_the_resize_of_nsfwjs_is_that_of_torch_with_aligned_corners(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    wanted = torch.nn.functional.interpolate(tensor, (224, 224), mode="bilinear", align_corners=True)[0].permute(1, 2, 0)
    assert np.abs(squashed(Image.fromarray(pixels), "bilinear_corners") - wanted.numpy()).max() < 1e-4


def test_a_result_does_not_depend_on_other_pictures_and_a_broken_one_has_none(network: NsfwMobileNet) -> None:
    bodies = [(ROOT / name).read_bytes() for name in list(stated("probabilities"))[:3]]
    found = network.probabilities([bodies[0], b"no picture", bodies[1], bodies[2]], 3)
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2, 3]]).all()
    assert np.array_equal(network.probabilities(bodies[::-1], 3), found[[3, 2, 0]])
    assert network.probabilities([], 3).shape == (0, 5)
