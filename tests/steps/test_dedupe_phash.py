from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions
from vlmdata.row import set_column
from vlmdata.similarity.hamming import distinct_pairs
from vlmdata.step import RecipeError
from vlmdata.steps.dedupe_phash import DedupePhash, kept_of_hashes


def test_images_within_the_distance_are_dropped_and_one_bit_more_are_kept() -> None:
    rows = captions(list("abcd"), phash=[0, 0b1111, 0b11111, None], original_width=[1, 9, 1, 9], original_height=[1, 9, 1, 9])
    found = DedupePhash(distance=4).run(rows)
    keys = rows["key"].to_pylist()
    assert found["drop"].to_pylist() == ["dedupe_phash", None, "dedupe_phash", None]
    assert found["cluster"].to_pylist() == [keys[1], None, keys[1], None]
    assert found["value"].to_pylist() == [4.0, None, 1.0, None]
    assert found["threshold"].to_pylist() == [4.0, None, 4.0, None]
    assert DedupePhash(distance=3).run(rows)["drop"].to_pylist() == [None, None, "dedupe_phash", None]


def test_the_ends_of_a_chain_are_not_duplicates_of_each_other() -> None:
    rows = captions(list("abc"), phash=[0, 0b1111, 0b11111111], size=[9, 5, 1])
    assert DedupePhash(distance=4).run(rows)["drop"].to_pylist() == [None, "dedupe_phash", None]


def test_the_best_copy_can_be_chosen_by_a_score_and_by_position() -> None:
    rows = captions(list("abc"), phash=[7, 7, 7])
    rows = set_column(rows, "clip_score", pa.array([[0.2, None], [0.30001, None], [0.30002, None]], pa.list_(pa.float32())))
    assert DedupePhash(keep=("clip_score", "earliest")).run(rows)["drop"].is_null().to_pylist() == [False, True, False]
    assert DedupePhash(keep=("clip_score",)).columns_read() == ("images.phash", "images.drop", "clip_score")


def test_other_hashes_are_read_from_their_column() -> None:
    rows = captions(list("ab"), phash=[0, 2**62])
    rows = set_column(rows, "other", pa.array([[2**63 + 1, None], [2**63, None]], pa.list_(pa.uint64())))
    assert DedupePhash(hash="other").run(rows)["drop"].to_pylist() == [None, "dedupe_phash"]


def test_the_kept_rows_do_not_depend_on_the_order_of_rows() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**10, 500, dtype=np.uint64)
    rank = random.permutation(500)
    find = partial(distinct_pairs, distance=2)
    kept = set(rank[kept_of_hashes(hashes, rank, find)].tolist())
    order = random.permutation(500)
    assert set(rank[order][kept_of_hashes(hashes[order], rank[order], find)].tolist()) == kept


def test_a_distance_that_cannot_be_searched_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"must lie in 0\.\.16"):
        DedupePhash(distance=17).check()
