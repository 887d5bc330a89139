"""Datasets that earlier code built stay usable: nothing is fetched or measured again, and every verb works on them.

`tests/fixtures/make_built_before.py` made them at the commit that it names.
"""

import json
import tarfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.site import ledger, manifest
from tests.fixtures import fixture
from tests.fixtures.make_built_before import DOWNLOAD, HOST, names, routes
from tests.servers import LoopbackServer
from vlmdata import cli, run, stream
from vlmdata.demo.recipe import HERE
from vlmdata.recipe import load, parse

BUILT = fixture("H_built_before")
DATASETS = ("captions", "pages")
MEASURED = ("log", "data", "notes")  # folders of work/ that hold measured values
whole = pytest.mark.whole


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Return both datasets as they were built, in the current folder, without their inputs except the lists."""
    with tarfile.open(BUILT / "built.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "clip").symlink_to(HERE / "clip")
    (tmp_path / "crawl").symlink_to(fixture("C_warc/wget"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def recipe_and_proxy(name):
    """Yield the recipe of a dataset with a proxy that answers everything, and the proxy, which records its requests."""
    with LoopbackServer(routes(passing=True)) as proxy:
        web = {**DOWNLOAD, "proxy": f"http://127.0.0.1:{proxy.port}", "robots": False}
        yield load(f"{name}.yaml", {f"download.{key}": value for key, value in web.items()}), proxy


def measured(out: Path) -> dict[str, bytes]:
    files = [path for folder in MEASURED for path in (out / "work" / folder).rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files}


def outcomes(out: Path) -> list[tuple]:
    return [(line["key"], line["outcome"], line["step"], line["reason"], line["value"]) for line in ledger(out)]


def test_every_measurement_and_source_has_its_former_name():
    before = json.loads((BUILT / "names.json").read_text())
    now = names()
    assert {kind: {name: now[kind].get(name) for name in before[kind]} for kind in before} == before


@whole
@pytest.mark.parametrize("name", DATASETS)
def test_the_same_recipe_does_nothing(built, name):
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file()}
    made = run(parse(manifest(built / name)["recipe"]), name, local=True, workers=1)
    assert made["kept"] == manifest(built / name)["kept"]
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file()} == before


@whole
@pytest.mark.parametrize("name", DATASETS)
def test_another_proxy_fetches_and_measures_nothing_and_decides_equally(built, name):
    files, decided = measured(built / name), outcomes(built / name)
    assert len(files) >= 6
    with recipe_and_proxy(name) as (recipe, proxy):
        run(recipe, name, local=True, workers=1)
    assert proxy.requests == []
    assert measured(built / name) == files
    assert outcomes(built / name) == decided


@whole
def test_another_threshold_measures_nothing(built):
    files = measured(built / "captions")
    with recipe_and_proxy("captions") as (recipe, proxy):
        tree = recipe.describe()
        tree["steps"] = [{"image_size": {"min_side": 49}} if "image_size" in step else step for step in tree["steps"]]
        made = run(parse(tree), "captions", local=True, workers=1)
    assert (proxy.requests, made["kept"]) == ([], 0)
    assert measured(built / "captions") == files


@whole
def test_retry_fetches_only_rows_that_failed_temporarily(built, capsys):
    assert [line["url"] for line in ledger(built / "captions") if line["reason"] == "http_503"] == [f"{HOST}/good/3.jpg"]
    with recipe_and_proxy("captions") as (recipe, proxy):
        Path("asked.yaml").write_text(json.dumps(recipe.describe()))
        assert cli.main(["retry", "captions", "--recipe", "asked.yaml", "--local", "--workers", "1"]) == 0
    assert [request.path for request in proxy.requests] == [f"{HOST}/good/3.jpg"]
    assert not [line for line in ledger(built / "captions") if line["reason"] == "http_503"]


@pytest.mark.parametrize("name", DATASETS)
def test_check_finds_every_byte_unchanged(built, name, capsys):
    assert cli.main(["check", name, "--bytes"]) == 0
    assert "intact" in capsys.readouterr().out


def test_why_shows_the_outcome_of_a_row(built, capsys):
    assert cli.main(["why", "captions", f"{HOST}/missing/13.jpg"]) == 0
    assert "dropped by download: http_404" in capsys.readouterr().out


def test_forget_removes_a_sample_permanently(built, capsys):
    assert cli.main(["forget", "captions", "--url", f"{HOST}/good/5.jpg"]) == 0
    assert "among them 1 sample" in capsys.readouterr().out
    assert cli.main(["check", "captions", "--bytes"]) == 0
    assert f"{HOST}/good/5.jpg" not in {sample["json"]["url"] for sample in decoded("captions")}


@pytest.mark.parametrize("name", DATASETS)
def test_stream_yields_every_sample(built, name):
    kept = {line["key"] for line in ledger(built / name) if line["outcome"] == "kept"}
    assert {sample["json"]["key"] for sample in decoded(name)} == kept


def decoded(name: str) -> list[dict]:
    return [{**sample, "json": json.loads(sample["json"])} for sample in stream(name, torch=False)]


def test_a_recipe_is_the_same_without_parameters_that_were_added_later():
    source, steps = {"type": "url_list", "path": "a.csv", "boxes": "b"}, ["download", {"image_size": {"min_side": 9}}]
    recipe = parse({"source": source, "steps": steps})
    stored = recipe.describe()
    del stored["source"]["box_labels"], stored["steps"][0]["download"]["robots"]
    assert recipe.is_described_by(recipe.describe()) and recipe.is_described_by(stored)
    others = [{"source": {**source, "box_labels": "l"}}, {"steps": steps[:1]}, {"steps": [*steps, "image_detail"]}]
    changed = [[{"download": {"robots": False}}, steps[1]], steps[::-1], [steps[0], "image_size"]]
    others += [{"steps": one} for one in changed]
    for change in others:
        assert not parse({"source": source, "steps": steps, **change}).is_described_by(stored)
    assert not recipe.is_described_by({**stored, "steps": [5, {"image_size": None}]})
