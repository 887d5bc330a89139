"""The pieces of a source are partitions: identical records in different pieces stay separate rows with different keys."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine.site import hashes, ledger, picture
from vlmdata import run
from vlmdata.recipe import parse

pytestmark = pytest.mark.whole


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe for three files that hold the same ten pictures as inline bytes and are read as three pieces."""
    folder = tmp_path / "in"
    folder.mkdir()
    images = [{"bytes": picture(i), "path": None} for i in range(10)]
    for number in range(3):
        table = pa.table({"image": images, "caption": [f"picture {i}" for i in range(10)]})
        pq.write_table(table, folder / f"{number}.parquet")
    source = {"type": "hf_dataset", "path": str(folder), "streaming": True}
    return parse({"source": source, "steps": [{"resize": {"size": 48}}], "shards": {"samples": 8}})


def test_the_same_record_in_three_pieces_gives_three_rows(recipe, tmp_path):
    made = run(recipe, tmp_path / "out", local=True, workers=2)
    keys = [line["key"] for line in ledger(tmp_path / "out")]
    assert made["rows"] == made["kept"] == len(set(keys)) == 30
    assert sorted(key.partition("_")[2] for key in keys) == [""] * 10 + ["1"] * 10 + ["2"] * 10


def test_a_row_limit_is_exact_across_pieces_and_a_run_without_it_resumes(recipe, tmp_path):
    assert run(recipe, tmp_path / "out", limit=14, local=True, workers=1)["rows"] == 14
    assert run(recipe, tmp_path / "out", local=True, workers=1)["rows"] == 30
    run(recipe, tmp_path / "fresh", local=True, workers=2)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")
