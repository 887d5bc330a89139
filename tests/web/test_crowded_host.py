"""A list that is mostly one host's is told of before the run, with what it will take."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from tests.web.ask import options
from vlmdata.cli import main
from vlmdata.engine.partitions import plan
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.recipe import parse
from vlmdata.web.crowded_host import crowd


def urls(crowded: int, others: int) -> list[str]:
    mine = [f"https://big.example/{n}.jpg" for n in range(crowded)]
    return [*mine, *(f"https://host{n}.example/a.jpg" for n in range(others))]


def test_the_line_names_host_pace_time_and_what_to_say() -> None:
    said = crowd(urls(900, 100), 1_000_000, options(host_requests_per_s=20.0))
    assert said == (
        "90% of the addresses are of big.example, which is asked at most 20 times a second: the run takes 12 hours. "
        "If its owner lets you ask more often: --set 'download.host_rates={big.example: 200}'"
    )


def test_a_host_with_another_pace_is_judged_by_that() -> None:
    assert crowd(urls(900, 100), 10**6, options(host_requests_per_s=20.0, host_rates={"big.example": 0})) is None
    assert crowd(urls(900, 100), 10**6, options(host_requests_per_s=0.0)) is None
    said = crowd(urls(500, 500), 10**6, options(host_requests_per_s=0.0, host_rates={"big.example": 2.0}))
    assert said is not None and "at most 2 times" in said and "3 days" in said


def test_short_lists_and_spread_ones_are_let_be() -> None:
    paced = options(host_requests_per_s=20.0)
    assert crowd(urls(1000, 0), 1000, paced) is None  # 50 s
    assert crowd(urls(1000, 0), 1300, paced) is not None
    assert crowd(urls(49, 900), 10**7, options(host_requests_per_s=0.001)) is None  # so few may be chance
    assert crowd([None, "no address", *urls(0, 1000)], 10**7, paced) is None


def test_check_and_plan_both_tell(tmp_path, capsys) -> None:
    listing = tmp_path / "urls.parquet"
    given = urls(1500, 100)
    pq.write_table(pa.table({"url": given, "caption": ["a picture"] * len(given)}), listing)
    tree = {"source": {"type": "url_list", "path": str(listing)}, "steps": ["download"]}
    (tmp_path / "recipe.yaml").write_text(json.dumps(tree))
    assert main(["check", str(tmp_path / "recipe.yaml")]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("vlmdata: 94% of the addresses are of big.example") and "more than 75 seconds" in line
    plan.make(parse(tree), LocalStore(tmp_path / "out"))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("vlmdata: 9") and "75 seconds" in line
