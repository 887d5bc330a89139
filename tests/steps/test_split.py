import json

import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.split import Split

HALVES = {"train": 0.5, "test": 0.5}


def sides(rows: pa.Table, **parameters: object) -> list[str]:
    found = Split(**{"shares": HALVES, **parameters}).run(rows)  # type: ignore[arg-type]
    return [json.loads(extra)["split"] for extra in found["extra"].to_pylist()]


def hashed(count: int) -> pa.Table:
    """Return rows with keys like real ones and very different hashes, which are almost surely at least 20 bits apart."""
    random = np.random.default_rng(0)
    rows = captions([f"text {i}" for i in range(count)], phash=random.integers(0, 2**63, count).tolist())
    return set_column(rows, "key", pa.array([f"{random.integers(2**62):024x}" for _ in range(count)]))


def test_shares_are_close_to_the_requested_ones() -> None:
    found = sides(hashed(3000), shares={"train": 0.8, "val": 0.15, "test": 0.05})
    for side, share in (("train", 0.8), ("val", 0.15), ("test", 0.05)):
        assert abs(found.count(side) - 3000 * share) < 4 * np.sqrt(3000 * share * (1 - share))


def test_chains_of_similar_images_and_equal_texts_or_bytes_are_on_one_side() -> None:
    for seed in range(20):
        rows = captions(
            ["a", "b", "c", "c", "d", "e"],
            phash=[0, 0xFF, 0xFFFF, 2**40 - 2**20, None, None],
            sha256=["1", "2", "3", "4", "4", "5"],
        )
        found = sides(rows, seed=seed)
        assert len(set(found[:5])) == 1  # by hash 0-1-2, by text 2-3, by bytes 3-4
    assert len({tuple(sides(rows, seed=seed)[4:]) for seed in range(20)}) == 4  # the last row is assigned independently


def test_near_texts_and_similar_embeddings_stay_together_if_requested() -> None:
    words = [f"word{number}" for number in range(40)]
    rows = captions([" ".join(words), " ".join([*words, "more"]), "one thing", "another"])
    vectors = [[1, 0], [0, 1], [0.1, 1], [1, 0.02]]
    stored = pa.array([[np.array(vector, "<f2").tobytes(), None] for vector in vectors], pa.list_(pa.binary()))
    rows = set_column(rows, "clip_score.embedding", stored)
    apart, together = [], []
    for seed in range(30):
        apart.append(sides(rows, seed=seed))
        together.append(sides(rows, seed=seed, jaccard=0.8, cosine=0.98))  # 0 and 1 by text; 1 and 2, 0 and 3 by embedding
    assert {len(set(found)) for found in together} == {1}
    assert any(found[0] != found[1] for found in apart) and any(found[1] != found[2] for found in apart)
    assert Split().columns_read() == ("images.phash", "images.sha256", "texts.text", "url", "extra")


def test_a_domain_stays_on_one_side_if_requested() -> None:
    rows = hashed(200)  # all on example.org
    assert len(set(sides(rows))) == 2
    assert len(set(sides(rows, by_domain=True))) == 1


def test_later_rows_do_not_move_earlier_ones() -> None:
    rows = hashed(300)
    assert sides(rows)[:150] == sides(rows.slice(0, 150))


def test_one_side_may_be_kept_and_the_reason_of_other_rows_names_their_side() -> None:
    rows = hashed(100)
    found = Split(shares=HALVES, only="train").run(rows)
    assert found["reason"].to_pylist() == [None if side == "train" else "split_test" for side in sides(rows)]


def test_shares_must_add_up() -> None:
    with pytest.raises(RecipeError, match="add up to 1"):
        Split(shares={"train": 0.9}).check()
    with pytest.raises(RecipeError, match="one of train, val, test"):
        Split(only="dev").check()
