"""A warning before the run names a host that has most of the addresses, and the time it takes."""

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
    same_host = [f"https://big.example/{n}.jpg" for n in range(crowded)]
    return [*same_host, *(f"https://host{n}.example/a.jpg" for n in range(others))]


def test_the_line_names_host_rate_time_and_setting() -> None:
    warning = crowd(urls(900, 100), 1_000_000, options(host_requests_per_s=20.0))
    assert warning == (
        "90% of the addresses are on big.example, which gets at most 20 requests a second, so the run takes 12 hours. "
        "If the owner of the host allows more, add --set 'download.host_rates={big.example: 200}'"
    )


def test_the_rate_of_the_host_decides() -> None:
    assert crowd(urls(900, 100), 10**6, options(host_requests_per_s=20.0, host_rates={"big.example": 0})) is None
    assert crowd(urls(900, 100), 10**6, options(host_requests_per_s=0.0)) is None
    warning = crowd(urls(500, 500), 10**6, options(host_requests_per_s=0.0, host_rates={"big.example": 2.0}))
    assert warning is not None and "at most 2 requests" in warning and "3 days" in warning


def test_short_lists_and_spread_ones_get_no_warning() -> None:
    limited = options(host_requests_per_s=20.0)
    assert crowd(urls(1000, 0), 1000, limited) is None  # 50 s
    assert crowd(urls(1000, 0), 1300, limited) is not None
    assert crowd(urls(49, 900), 10**7, options(host_requests_per_s=0.001)) is None  # 49 may be chance
    assert crowd([None, "no address", *urls(0, 1000)], 10**7, limited) is None


def test_check_and_plan_both_warn(tmp_path, capsys) -> None:
    listing = tmp_path / "urls.parquet"
    addresses = urls(1500, 100)
    pq.write_table(pa.table({"url": addresses, "caption": ["a picture"] * len(addresses)}), listing)
    tree = {"source": {"type": "url_list", "path": str(listing)}, "steps": [{"download": {"contact": "a@b.org"}}]}
    (tmp_path / "recipe.yaml").write_text(json.dumps(tree))
    assert main(["check", str(tmp_path / "recipe.yaml")]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("vlmdata: 94% of the addresses are on big.example") and "more than 75 seconds" in line
    plan.make(parse(tree), LocalStore(tmp_path / "out"))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("vlmdata: 9") and "75 seconds" in line
