import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions, document, table
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.concept_balance import ConceptBalance, chances, concepts_of, weights

COLUMN = "nearest_concepts.ids"


def with_concepts(*concepts: list[int] | None) -> pa.Table:
    values = [[np.array(own, "<i4").tobytes() if own is not None else None, None] for own in concepts]
    return set_column(captions(["t"] * len(concepts)), COLUMN, pa.array(values, pa.list_(pa.binary())))


def kept(step: ConceptBalance, rows: pa.Table) -> np.ndarray:
    return step.run(rows)["drop"].is_null().to_numpy(zero_copy_only=False)


def test_a_weight_is_the_mean_of_the_inverse_frequencies_of_a_rows_concepts() -> None:
    rows = with_concepts([7, 2], [7], [7, 2, 5], None)
    assert weights(concepts_of(rows, COLUMN), 4).tolist() == pytest.approx(
        [(1 / 3 + 1 / 2) / 2, 1 / 3, (1 / 3 + 1 / 2 + 1) / 3, 0]
    )


def test_chances_are_in_proportion_to_the_weights_and_add_up_to_the_target() -> None:
    random = np.random.default_rng(0)
    weight = random.exponential(size=1000) ** 3
    for target in (0.5, 10, 300, 999.5):
        found = chances(weight, target)
        assert found.sum() == pytest.approx(target) and found.max() <= 1
        free = found < 1
        assert np.ptp(found[free] / weight[free]) < 1e-9
        assert found[~free].size == 0 or (found[free] / weight[free]).max() * weight[~free].min() >= 1 - 1e-9
    assert chances(np.ones(4), 2).tolist() == [0.5] * 4
    assert chances(weight, 1000).tolist() == chances(weight, 5000).tolist() == [1.0] * 1000
    assert chances(np.ones(0), 3).tolist() == []


def test_planted_concepts_of_unequal_frequency_are_kept_in_equal_numbers() -> None:
    rows = with_concepts(*[[0]] * 3000, *[[1]] * 900, *[[2]] * 600)
    found = kept(ConceptBalance(rows=1500), rows)
    numbers = [found[:3000].sum(), found[3000:3900].sum(), found[3900:].sum()]
    assert all(abs(number - 500) < 4 * np.sqrt(500) for number in numbers)


def test_concepts_too_rare_for_an_equal_share_are_kept_whole() -> None:
    rows = with_concepts(*[[0]] * 4000, *[[1]] * 40)
    found = kept(ConceptBalance(rows=540), rows)
    assert found[4000:].all() and abs(found[:4000].sum() - 500) < 4 * np.sqrt(500)


def test_the_draw_depends_only_on_keys_concepts_and_seed() -> None:
    rows = with_concepts(*[[number % 7, 9] for number in range(400)])
    first = kept(ConceptBalance(), rows)
    order = np.random.default_rng(0).permutation(400)
    assert (kept(ConceptBalance(), rows.take(order)) == first[order]).all()
    assert (kept(ConceptBalance(seed=1), rows) != first).any()
    assert (kept(ConceptBalance(share=0.2), rows) <= first).all(), "a smaller share keeps a part of a larger one"


def test_the_verdict_of_a_rejected_row_has_its_probability() -> None:
    found = ConceptBalance(share=0.25).run(with_concepts(*[[3]] * 80))
    lost = found.filter(found["drop"].is_valid())
    assert set(lost["reason"].to_pylist()) == {"not_drawn"} and set(lost["value"].to_pylist()) == {0.25}


def test_rows_without_concepts_take_no_part_in_the_draw() -> None:
    rows = with_concepts(*[None] * 20, *[[1]] * 20)
    assert kept(ConceptBalance(rows=20), rows).all()
    found = ConceptBalance(rows=20, unscored="reject").run(rows)
    assert found["reason"].to_pylist() == ["no_concept"] * 20 + [None] * 20


def test_rejected_images_and_rows_do_not_count() -> None:
    rows = table([document({"url": "a"}, "t", {"url": "b", "drop": "before"}), document({"url": "c"}, "t")])
    values = [[np.array([n], "<i4").tobytes() if n is not None else None for n in own] for own in ([1, None, 2], [1, None])]
    rows = set_column(rows, COLUMN, pa.array(values, pa.list_(pa.binary())))
    assert concepts_of(rows, COLUMN).tolist() == [[0, 1], [1, 1]]
    rows = set_column(rows, "drop", pa.array([None, "before"], pa.string()))
    assert concepts_of(rows, COLUMN).tolist() == [[0, 1]]


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_rows_are_decided_too(count: int) -> None:
    assert len(ConceptBalance(share=1).run(with_concepts(*[[1]] * count))) == count
    assert kept(ConceptBalance(share=1), with_concepts(*[[1]] * count)).all()


def test_impossible_shares_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"concept_balance\.share must lie in \(0, 1\]"):
        ConceptBalance(share=0).check()
    with pytest.raises(RecipeError, match=r"concept_balance\.rows must be at least 0"):
        ConceptBalance(rows=-1).check()
