"""A worker that measures nothing returns the committed values, and null for all others."""

from pathlib import Path

import pytest

from tests.engine.site import download, site
from vlmdata import run
from vlmdata.engine.partitions.calls import PartitionCall, RunJob
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.engine.work.worker import Worker
from vlmdata.recipe import Recipe, load
from vlmdata.row import flatten

pytestmark = pytest.mark.whole


def fetched(recipe: Recipe, out: Path) -> int:
    worker = Worker(RunJob(recipe, str(out)), measures=False)
    return flatten(worker.compute(PartitionCall(0, None, 1, ())), "images").field("blob").is_valid().sum().as_py()


def test_values_missing_from_the_logs_stay_null_and_nothing_is_fetched(tmp_path):
    out = tmp_path / "out"
    with site(tmp_path, 16, part_rows=16, steps=[download(), {"resize": {"size": 48}}]) as web:
        run(web.recipe, out, local=True, workers=1)
        requests, committed = web.requests(), LocalStore(out).list("work/log/000000")
        assert fetched(load(web.recipe), out) == 13  # the good pictures and the small one
        assert fetched(load(web.recipe, {"resize.size": 40}), out) == 0  # a changed step asks for another measurement
        assert web.requests() == requests and LocalStore(out).list("work/log/000000") == committed != []
