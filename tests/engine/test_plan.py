"""The plan has keys computed from content, equal partitions, flat memory and one source per folder."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlmdata.engine.drive.publish import SumsDiffer, check_sums, ledger_pieces, shard_pieces
from vlmdata.engine.partitions import plan
from vlmdata.engine.partitions.calls import PartitionCall
from vlmdata.engine.partitions.keys import content_keys, number_repeats
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.readers.find_files import File
from vlmdata.recipe import Recipe, Shards, parse
from vlmdata.row import conform
from vlmdata.sources.webdataset import Webdataset


def recipe(folder, rows: list[tuple[str, str]], part_rows: int = 10):
    folder.mkdir(exist_ok=True)
    path = folder / "urls.parquet"
    pq.write_table(pa.table({"url": [u for u, _ in rows], "caption": [c for _, c in rows]}), path)
    return parse({"source": {"type": "url_list", "path": str(path)}, "part_rows": part_rows})


def planned(folder, recipe) -> list[dict]:
    store = LocalStore(folder)
    made = plan.make(recipe, store)
    return [row for part in range(made.parts) for row in made.read_partition(store, part).to_pylist()]


ROWS = [(f"http://example.org/{n % 90}.jpg", f"text {n % 90}") for n in range(100)]  # ten rows occur twice


def test_keys_do_not_depend_on_the_order_of_the_list(tmp_path):
    one = planned(tmp_path / "one", recipe(tmp_path / "a", ROWS))
    two = planned(tmp_path / "two", recipe(tmp_path / "b", ROWS[::-1]))
    assert one == two and len({row["key"] for row in one}) == 100
    assert sum(row["key"].endswith("_1") for row in one) == 10


def test_a_key_depends_only_on_the_content():
    def key(url, text, alternatives=None):
        rows = pa.table({"images": [[{"url": url}]], "texts": [[{"text": text, "alternatives": alternatives}]]})
        return content_keys(conform(rows))[0]

    assert key("a", "b") == key("a", "b")
    assert len({key("a", "b"), key("a", "c"), key("b", "b"), key("ab", ""), key("a", "b", ["c"])}) == 5


def test_repeats_are_numbered_in_order():
    assert number_repeats(["x", "y", "x", "x"]) == ["x", "y", "x_1", "x_2"]


def test_a_plan_sorted_on_disk_equals_one_made_in_memory(tmp_path, monkeypatch):
    in_memory = planned(tmp_path / "one", recipe(tmp_path / "a", ROWS))
    monkeypatch.setattr(plan, "IN_MEMORY_BYTES", 1500)
    assert planned(tmp_path / "two", recipe(tmp_path / "a", ROWS)) == in_memory


def test_partitions_have_equal_size_and_hold_every_row_once(tmp_path):
    store = LocalStore(tmp_path / "out")
    made = plan.make(recipe(tmp_path / "a", ROWS[:85], part_rows=20), store)
    assert [len(made.read_partition(store, part)) for part in range(made.parts)] == [20, 20, 20, 20, 5]


def test_a_list_without_rows_has_no_partitions(tmp_path):
    store = LocalStore(tmp_path / "out")
    made = plan.make(recipe(tmp_path / "a", []), store)
    assert (made.parts, made.rows) == (0, 0)


def test_each_shard_holds_the_given_number_of_samples_and_the_last_one_the_rest():
    calls = [PartitionCall(number, None, 0, ()) for number in range(4)]
    pieces = shard_pieces(calls, [3, 0, 7, 2], 5)
    assert [[(call.partition, start, stop) for call, start, stop in shard] for shard in pieces] == [
        [(0, 0, 3), (2, 0, 2)],
        [(2, 2, 7)],
        [(3, 0, 2)],
    ]
    assert [before for file in ledger_pieces(calls, [3, 0, 7, 2], 1000) for _, before in file] == [0, 3, 3, 10]


@pytest.mark.parametrize("change", [{"rows": 9}, {"kept": 5}, {"dropped": [["a", "b", 3]]}])
def test_a_lost_or_doubled_row_stops_the_run_before_anything_is_published(change):
    ledger = {"rows": 10, "kept": 6, "dropped": [["a", "b", 4]]}
    check_sums(10, 6, [{"samples": 6}], [ledger])
    with pytest.raises(SumsDiffer, match="nothing was published"):
        check_sums(10, 6, [{"samples": 6}], [{**ledger, **change}])


def test_files_whose_addresses_differ_only_in_a_secret_are_all_read(tmp_path):
    files = [File(f"http://h/get?key={name}", 1) for name in "ab"]

    class Two(Webdataset):
        def files(self):
            return files

    source = Two(path="http://h/")
    made = plan.make(Recipe(source, (), Shards(), 1000), LocalStore(tmp_path))
    assert [piece["path"] for piece in made.pieces] == ["http://h/get?key=REDACTED", "http://h/get?key=REDACTED#1"]
    assert [made.piece(part, source)["path"] for part in range(2)] == [path for path, _ in files]


def test_records_of_a_list_that_give_no_row_are_counted_in_the_plan(tmp_path):
    region = {"x": 1, "y": 1, "width": 5, "height": 5, "phrase": "words"}
    entries = [{"id": 1, "regions": [region, {**region, "width": 0}]}, {"id": 2, "regions": [{**region, "height": -1}]}]
    (tmp_path / "region_descriptions.json").write_text(json.dumps(entries))
    (tmp_path / "image_data.json").write_text(json.dumps([{"image_id": one, "url": "http://h/"} for one in (1, 2, 3)]))
    store = LocalStore(tmp_path / "out")
    made = plan.make(parse({"source": {"type": "visual_genome", "path": str(tmp_path)}, "steps": ["download"]}), store)
    assert (made.rows, made.others) == (2, {"box_without_area": 2, "image_without_entry": 1})


def test_a_plan_of_an_earlier_version_counts_nothing(tmp_path):
    store = LocalStore(tmp_path / "out")
    made = plan.make(recipe(tmp_path, [("http://h/", "a")]), store)
    record = json.loads(store.path(plan.RECORD).read_text())
    record.pop("others")
    store.path(plan.RECORD).write_text(json.dumps(record))
    assert plan.load(store) == made
