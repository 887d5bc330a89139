import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.dedupe_semantic import DedupeSemantic

ANGLES = np.radians([0, 10, 20, 90, 95])
VECTORS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float16)
LIMIT = float(np.cos(np.radians(12)))


def rows_with(kind: str) -> pa.Table:
    rows = captions(list("abcdef"), size=[1, 5, 2, 3, 4, 9])
    values: list[list] = [[row.tobytes() if kind == "bytes" else row.tolist(), None] for row in VECTORS] + [[None, None]]
    inner = {"bytes": pa.binary(), "fixed": pa.list_(pa.float16(), 2), "list": pa.list_(pa.float32())}[kind]
    return set_column(rows, "clip_score.embedding", pa.array(values, pa.list_(inner)))


@pytest.mark.parametrize("kind", ["bytes", "fixed", "list"])
def test_all_pairs_mode_keeps_the_best_and_drops_only_rows_close_to_it(kind: str) -> None:
    rows = rows_with(kind)
    found = DedupeSemantic(cosine=LIMIT).run(rows)
    keys = rows["key"].to_pylist()
    assert found["cluster"].to_pylist() == [keys[1], None, keys[1], keys[4], None, None]
    assert found["value"].to_pylist()[0] == pytest.approx(np.cos(np.radians(10)), abs=0.005)


def test_semdedup_drops_a_whole_chain_but_its_first_row() -> None:
    rows = rows_with("fixed")
    found = DedupeSemantic(cosine=LIMIT, rule="semdedup", cells=1, keep=("earliest",)).run(rows)
    keys = rows["key"].to_pylist()
    assert found["cluster"].to_pylist() == [None, keys[0], keys[0], None, keys[3], None]


def test_the_hardest_rows_come_first_as_in_the_paper() -> None:
    found = DedupeSemantic(cosine=LIMIT, rule="semdedup", cells=2, keep=("hard",)).run(rows_with("fixed"))
    assert 0 < found["drop"].null_count < 6
    with pytest.raises(RecipeError, match="cannot be combined with other entries"):
        DedupeSemantic(keep=("hard",)).check()
