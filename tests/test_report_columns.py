"""The report can draw any column of any step, and a failed report does not lose the dataset."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine.site import picture
from tests.rows import captions
from vlmdata import recipe as recipes
from vlmdata import run
from vlmdata.columns import LEDGER
from vlmdata.engine.store.open_store import open_store
from vlmdata.report.charts import charts
from vlmdata.report.kept_samples import Stored
from vlmdata.report.scan_ledger import Facts, scan
from vlmdata.report.threshold_lines import Line, lines
from vlmdata.row import drop_rows, numbers

DAYS = [datetime.date(2019, 5, 1), datetime.date(2024, 2, 29), datetime.date(2024, 3, 1)]
TIMES = [datetime.datetime(day.year, 12, 31, 23, 59, tzinfo=datetime.UTC) for day in DAYS]


def facts_of(folder, column: pa.Array) -> Facts:
    """Return what the report collects from three kept rows with a measured column."""
    images = pa.array([[{}, None]] * 3, LEDGER.field("images").type)
    texts = pa.array([[None, {}]] * 3, LEDGER.field("texts").type)
    own = {"key": ["a", "b", "c"], "outcome": ["kept"] * 3, "images": images, "texts": texts}
    table = {field.name: own.get(field.name, pa.nulls(3, field.type)) for field in LEDGER}
    (folder / "ledger").mkdir()
    pq.write_table(pa.table({**table, "own.x": column}), folder / "ledger/00000.parquet")
    return scan(open_store(folder), {"files": {"ledger/00000.parquet": {}}})


@pytest.mark.parametrize(
    ("column", "values", "middle"),
    [
        (pa.array([2**64 - 1, 2**40, None], pa.uint64()), 2, None),  # hashes have no median
        (pa.array([[2**64 - 1, None], [2**63, None], None], pa.list_(pa.uint64())), 2, None),
        (pa.array([1, 2, 3], pa.uint64()), 3, "2"),
        (pa.array([2**62, 2**62 + 1, -(2**62)], pa.int64()), 3, "4.61e+18"),
        (pa.array([2**62] * 3, pa.int64()), 3, "4.61e+18"),
        (pa.array([decimal.Decimal("0.5"), decimal.Decimal("1.5"), decimal.Decimal("1.5")]), 3, "1.5"),
        (pa.array([decimal.Decimal(10) ** 70] * 3, pa.decimal256(76)), 3, "3.4e+38"),
        (pa.array([60, 90, None], pa.duration("s")), 2, "60"),
        (pa.array([1.0, 2.0, 2.0], pa.float16()), 3, "2"),
        (pa.array([1e308, -1e308, 1e-308]), 3, "0"),
        (pa.array([0.28] * 3), 3, "0.28"),
        (pa.array([float("nan"), float("inf"), 7.0]), 1, "7"),
        (pa.array([[1.0, 2.0], [3.0], None], pa.large_list(pa.float64())), 2, "1"),  # a list of another length is not a score
    ],
)
def test_a_column_of_any_number_type_is_drawn_or_described_as_hashes(tmp_path, column, values, middle):
    (chart,) = charts(facts_of(tmp_path, column), [], Stored())["measured"]
    assert chart["title"] == "own.x"
    if middle is None:
        assert chart["hashes"] == values
    else:
        assert (chart["counts"]["kept"], chart["middle"]) == (values, middle)


@pytest.mark.parametrize(
    "column",
    [
        pa.nulls(3),
        pa.nulls(3, pa.float64()),
        pa.array([float("nan")] * 3),
        pa.array([b"a", b"b", b"\xff"]),
        pa.array([{"a": 1}] * 3),
        pa.array([[[1], [2]]] * 3),
    ],
)
def test_a_column_without_numbers_is_left_out(tmp_path, column):
    facts = facts_of(tmp_path, column)
    assert charts(facts, [], Stored()) == {"decided": [], "measured": []} and not any(w.counts for w in facts.words.values())


@pytest.mark.parametrize(
    ("column", "counts"),
    [
        (pa.array([True, False, True]), {"true": 2, "false": 1}),
        (pa.array(DAYS), {"2019": 1, "2024": 2}),
        (pa.array(TIMES, pa.timestamp("ns", "Europe/Paris")), {"2019": 1, "2024": 2}),
        (pa.array(["en", "en", None]).dictionary_encode(), {"en": 2}),
        (pa.array([["en", None], ["de", None], None], pa.list_(pa.large_string())), {"en": 1, "de": 1}),
    ],
)
def test_strings_booleans_and_years_of_dates_are_counted(tmp_path, column, counts):
    found = facts_of(tmp_path, column).words["own.x"].counts
    assert {name: counter.total() for name, counter in found.items()} == counts


@pytest.mark.parametrize("limit", [float("inf"), float("nan"), 10**400])
def test_a_limit_that_is_not_a_number_is_not_drawn(tmp_path, limit):
    facts = facts_of(tmp_path, pa.array([1.0, 2.0, 3.0]))
    recipe = {"steps": [{"own": {"min_x": 2, "max_x": limit}}]}
    assert lines(facts, recipe) == [Line("own.x", 2.0, "≥", "own", "min_x", 0)]


def test_a_number_that_float64_cannot_hold_becomes_the_nearest_float():
    assert numbers(pa.array([2**64 - 1, 2**53 + 1, None], pa.uint64())).tolist()[:2] == [2.0**64, 2.0**53]
    bad = np.array([True, False])
    rows = drop_rows(captions(["a", "b"]), bad, "own", value=np.array([2**64 - 1, 1], np.uint64), threshold=2**62 + 1)
    assert (rows["value"].to_pylist(), rows["threshold"].to_pylist()) == ([2.0**64, None], [2.0**62, None])


@pytest.mark.whole
def test_64_bit_hashes_are_reported_and_a_failed_report_does_not_fail_the_run(tmp_path, monkeypatch):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
        (tmp_path / f"{number}.txt").write_text(f"picture number {number}")
    steps = ["imagededup_hash", {"dedupe_phash": {"hash": "imagededup_hash"}}]
    recipe = recipes.parse({"source": {"type": "files", "path": str(tmp_path)}, "steps": steps})
    assert run(recipe, tmp_path / "out", local=True, workers=1)["kept"] == 3
    assert '<p class="line-note">3 hashes; their order has no meaning.</p>' in (tmp_path / "out/report.html").read_text()

    def broken(store, manifest):
        raise ValueError("no <chart> of this")

    monkeypatch.setattr("vlmdata.report.write.gather", broken)
    with pytest.warns(UserWarning, match="report.html could not be drawn: ValueError: no <chart> of this"):
        made = run(recipe, tmp_path / "other", local=True, workers=1)
    assert made["kept"] == 3 and "no &lt;chart&gt; of this" in (tmp_path / "other/report.html").read_text()
