"""The order and the blend are pure functions that yield every row once, well mixed and in exact shares."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loader.tars import caption_set, keys_of
from vlmdata import stream
from vlmdata.loader.order.blend import BlendOrder, as_rates
from vlmdata.loader.order.order import Order, permute
from vlmdata.loader.stream import Blend, ReadOptions


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 1000, 65_535, 65_537, 200_001])
def test_an_epoch_has_every_row_once_and_any_position_can_be_computed(rows: int) -> None:
    for epoch in (0, 1):
        whole = Order(rows, 7).at(epoch, np.arange(rows))
        assert np.array_equal(np.sort(whole), np.arange(rows))
        some = np.arange(rows)[:: max(1, rows // 50)]
        assert np.array_equal(Order(rows, 7).at(epoch, some), whole[some])
        lone = Order(rows, 7)
        assert [int(lone.at(epoch, np.array([at]))[0]) for at in some[:20]] == whole[some[:20]].tolist()
    assert rows < 3 or not np.array_equal(Order(rows, 7).at(0, np.arange(rows)), whole)
    assert rows < 3 or not np.array_equal(Order(rows, 8).at(1, np.arange(rows)), whole)


def test_the_order_never_changes() -> None:
    """A state saved by one version is resumed by the next, so these numbers are part of the format."""
    assert Order(10, 0).at(0, np.arange(10)).tolist() == PINNED_SMALL
    assert Order(1_000_000, 3).at(2, np.array([0, 1, 64, 999_999])).tolist() == PINNED_LARGE


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1))
def test_permute_gives_a_permutation_with_an_inverse(count: int, of: int) -> None:
    numbers = np.arange(count)
    sent = permute(numbers, count, of)
    assert np.array_equal(np.sort(sent), numbers)
    assert np.array_equal(permute(sent, count, of, inverse=True), numbers)


def test_batches_are_mixed_as_well_as_random_ones() -> None:
    """Over 100 shards of 5,000 samples, batches of 32 hold samples of as many shards as random batches do, and neighbours
    are far apart."""
    rows = Order(500_000, 1).at(0, np.arange(500_000))
    shards = (rows // 5000)[: 500_000 // 32 * 32].reshape(-1, 32)
    seen = np.mean([len(set(step)) for step in shards[::50].tolist()])
    ideal = 100 * (1 - 0.99**32)
    assert abs(seen - ideal) < 1.0
    # distances in the order between samples that are neighbours in the tars
    apart = np.abs(np.argsort(rows)[1:] - np.argsort(rows)[:-1])
    assert np.median(apart) > 10_000


@settings(max_examples=40)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=5).filter(any), st.integers(1, 30_000), st.integers(0, 9))
def test_a_blend_draws_exact_shares_and_numbers_draws_without_gaps(weights: list[int], size: int, seed: int) -> None:
    blend = BlendOrder([0], [as_rates(weights)], seed)
    datasets, draws = blend.at(np.arange(size))
    for number, weight in enumerate(weights):
        assert np.array_equal(draws[datasets == number], np.arange((datasets == number).sum()))
        share = size * weight / sum(weights)
        assert abs((datasets == number).sum() - share) <= 64
    assert np.array_equal(blend.counts(size), np.bincount(datasets, minlength=len(weights)))
    some = np.arange(0, size, 97)
    assert np.array_equal(BlendOrder([0], [as_rates(weights)], seed).at(some)[0], datasets[some])


def test_weights_are_read_as_exact_decimals() -> None:
    assert as_rates([0.1, 0.2]) == [Fraction(1, 3), Fraction(2, 3)]
    with pytest.raises(ValueError, match="not all 0"):
        as_rates([0, 0])


def test_a_blend_by_epochs_reads_each_dataset_the_given_number_of_times(tmp_path: Path) -> None:
    a, b = str(caption_set(tmp_path / "a", [30])), str(caption_set(tmp_path / "b", [40]))
    samples = stream(Blend({a: 1, b: 2.5}, by="epochs"), reading=ReadOptions(cache=tmp_path), torch=False)
    assert len(samples) == 130
    urls = [sample["__url__"] for sample in samples]
    assert sum(url.startswith(a) for url in urls) == 30
    both = list(stream({a: 0.5, b: 0.5}, reading=ReadOptions(cache=tmp_path), torch=False))
    first = [sample["__key__"] for sample in both if sample["__url__"].startswith(a)][:30]
    assert len(set(first)) == 30 and len(both) == 70


def test_a_curriculum_changes_weights_at_its_position_and_resumes(tmp_path: Path) -> None:
    a, b = str(caption_set(tmp_path / "a", [30])), str(caption_set(tmp_path / "b", [40]))

    def course() -> list:
        blend = Blend({a: 1, b: 0}, later={20: {b: 1}, 50: {a: 1, b: 1}})
        return stream(blend, epochs=2, reading=ReadOptions(cache=tmp_path), torch=False)  # type: ignore

    samples = list(course())
    urls = [sample["__url__"].startswith(a) for sample in samples]
    assert all(urls[:20]) and not any(urls[20:50]) and 40 < sum(urls[50:]) <= 52
    keys = [(sample["__url__"], sample["__key__"]) for sample in samples]
    assert len(set(keys[20:50])) == 30
    later = course()
    later.load_state_dict(course().state_dict() | {"position": 45})  # type: ignore
    assert keys_of(later) == keys_of(samples)[45:]
    assert later.audit(trials=2).positions == 70  # type: ignore
    with pytest.raises(ValueError, match="`later` has weights for"):
        stream(Blend({a: 1}, later={5: {"c": 1}}), reading=ReadOptions(cache=tmp_path), torch=False)


def test_audit_fails_if_an_epoch_loses_or_doubles_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = stream(caption_set(tmp_path / "tars", [37, 1, 50]), reading=ReadOptions(cache=tmp_path), torch=False)
    assert samples.audit(1, trials=5).samples == 88
    honest = Order.at
    monkeypatch.setattr(Order, "at", lambda self, epoch, positions: honest(self, epoch, positions) // 2 * 2)
    with pytest.raises(AssertionError, match="missing or occurs"):
        samples.audit(1)


PINNED_SMALL = [5, 4, 3, 1, 7, 0, 6, 2, 9, 8]
PINNED_LARGE = [851260, 590225, 503188, 90494]


@pytest.mark.parametrize(
    ("seed", "order", "keys", "random"),
    [
        (0, "97b545c42075de84", "1-4 0-3 1-0 0-2 0-1 1-1 0-4 1-3 0-0 1-2", 2424008340112596316),
        (7, "2d771d4e61e80b02", "0-0 0-1 1-1 1-2 0-4 0-3 1-3 1-4 1-0 0-2", 3434594006619335875),
        (None, "1a5f3df84c3bea56", "0-0 0-1 0-2 0-3 0-4 1-0 1-1 1-2 1-3 1-4", 4566548051771092398),
    ],
)
def test_orders_and_states_equal_those_of_earlier_versions(
    tmp_path: Path, seed: int | None, order: str, keys: str, random: int
) -> None:
    tars = caption_set(tmp_path / "tars", [5, 5])
    samples = stream(tars, seed=seed, reading=ReadOptions(cache=tmp_path / "cache"), torch=False)
    assert samples.state_dict() == {"position": 0, "index": "3150366492e7374f", "order": order}
    given = list(samples)
    assert (" ".join(keys_of(given)), given[0]["__seed__"]) == (keys, random)
    assert keys_of(samples) == keys.split() or seed is not None  # With seed None, every epoch has the same order.
