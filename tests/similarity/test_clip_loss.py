"""s-CLIPLoss equals its published formula, computed plainly in float64 with torch."""

import numpy as np
import pytest
import torch

from vlmdata.similarity import clip_loss as module
from vlmdata.similarity.clip_loss import batch_scores, clip_losses, divisions
from vlmdata.similarity.units import Units, units_of
from vlmdata.splitmix import mixed


def pairs(count: int, width: int = 32, noise: float = 1.0) -> tuple[Units, Units]:
    random = np.random.default_rng(0)
    images = random.normal(size=(count, width)) + 0.5
    return units_of(images), units_of(images + noise * random.normal(size=(count, width)))


def plain(images: np.ndarray, texts: np.ndarray, temperature: float) -> np.ndarray:
    """Return the temperature times minus CLIP's loss of each pair: the mean of the cross entropies of both directions."""
    logits = torch.from_numpy(images).double() @ torch.from_numpy(texts).double().T / temperature
    own = torch.arange(len(logits))
    losses = [torch.nn.functional.cross_entropy(one, own, reduction="none") for one in (logits, logits.T)]
    return (-temperature * (losses[0] + losses[1]) / 2).numpy()


@pytest.mark.parametrize("temperature", [0.001, 0.01, 0.07, 1.0])
@pytest.mark.parametrize("count", [1, 2, 150])
def test_scores_of_a_batch_are_minus_the_loss_of_clip_times_the_temperature(
    temperature: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", 16)
    monkeypatch.setattr(module, "COLUMNS", 48)
    images, texts = pairs(count)
    assert np.abs(batch_scores(images, texts, temperature) - plain(images, texts, temperature)).max() < 1e-6


def test_opposite_and_equal_vectors_neither_overflow_nor_vanish() -> None:
    images = units_of(np.array([[1.0, 0], [1, 0], [0, 1], [-1, 0]]))
    texts = units_of(np.array([[-1.0, 0], [1, 0], [0, -1], [-1, 0]]))
    found = batch_scores(images, texts, 0.01)
    assert np.isfinite(found).all()
    assert np.abs(found - plain(images, texts, 0.01)).max() < 1e-6


def test_pairs_that_are_all_equal_share_the_score_of_a_blind_guess() -> None:
    images, texts = np.repeat(units_of(np.ones((1, 8))), 20, axis=0), np.repeat(units_of(np.eye(8)[:1]), 20, axis=0)
    assert np.abs(batch_scores(images, texts, 0.05) + 0.05 * np.log(20)).max() < 1e-6


def test_batches_hold_every_pair_once_and_differ_in_size_by_at_most_one() -> None:
    hashes = mixed(np.arange(101).astype(np.uint64))
    found = list(divisions(hashes, 25, 3, seed=0))
    assert [len(batch) for batch in found] == [21, 20, 20, 20, 20] * 3
    for start in (0, 5, 10):
        assert sorted(np.concatenate(found[start : start + 5]).tolist()) == list(range(101))
    assert set(found[0].tolist()) != set(found[5].tolist())
    assert set(found[0].tolist()) != set(next(divisions(hashes, 25, 1, seed=1)).tolist())


def test_pairs_that_fit_into_one_batch_are_scored_once() -> None:
    hashes = mixed(np.arange(9).astype(np.uint64))
    assert [len(batch) for batch in divisions(hashes, 9, 5, seed=0)] == [9]
    assert list(divisions(hashes[:0], 9, 5, seed=0)) == []


def losses(images: np.ndarray, texts: np.ndarray, hashes: np.ndarray, parts: int) -> np.ndarray:
    cut = [np.array_split(one, parts) for one in (images, texts)]
    return clip_losses(cut[0], cut[1], hashes, map, temperature=0.05, size=40, repeats=3, seed=4)


def test_losses_are_the_mean_over_divisions_of_the_formula_on_each_batch() -> None:
    images, texts = pairs(130)
    hashes = mixed(np.arange(130).astype(np.uint64))
    expected = np.zeros(130)
    for batch in divisions(hashes, 40, 3, seed=4):
        expected[batch] += plain(images[batch], texts[batch], 0.05) / 3
    assert np.abs(losses(images, texts, hashes, 1) - expected).max() < 1e-6


@pytest.mark.parametrize("parts", [1, 3, 100, 200])
def test_the_order_of_pairs_and_their_pieces_change_no_bit(parts: int) -> None:
    images, texts = pairs(130)
    hashes = mixed(np.arange(130).astype(np.uint64))
    expected = losses(images, texts, hashes, 1)
    order = np.random.default_rng(parts).permutation(130)
    assert losses(images[order], texts[order], hashes[order], parts).tolist() == expected[order].tolist()
