"""A run on Ray writes the bytes of a local run, on one node, on several, and when one of them dies."""

import threading
import time

import pytest

from tests.engine.nodes import nodes
from tests.engine.site import hashes, site
from tests.engine.test_killed import commits, unfinished
from vlmdata import run

pytestmark = pytest.mark.whole


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    with site(folder, 320, part_rows=10) as web:
        run(web.recipe, folder / "local", local=True, workers=2)
        web.expected = hashes(folder / "local")
        yield web


def test_a_run_on_ray_writes_the_bytes_of_a_local_run(web, tmp_path):
    run(web.recipe, tmp_path / "out", workers=2)
    assert hashes(tmp_path / "out") == web.expected


@pytest.mark.slow
def test_a_node_that_dies_during_a_run_changes_no_byte(web, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")
    monkeypatch.setenv(
        "RAY_health_check_timeout_ms", "30000"
    )  # a live node may be slow to answer, but a dead one refuses at once
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    with nodes({"num_cpus": 1}, {"num_cpus": 1}, {"num_cpus": 1}) as (cluster, others):
        with unfinished(web) as may_end:
            arguments = (cluster, others[0], tmp_path / "out", may_end)
            assassin = threading.Thread(target=_kill_later, args=arguments, daemon=True)
            assassin.start()
            run(web.recipe, tmp_path / "out", address=cluster.address)
            assassin.join()
        assert hashes(tmp_path / "out") == web.expected


def _kill_later(cluster, node, out, may_end):
    try:
        while commits(out) < 4:
            time.sleep(0.01)
        cluster.remove_node(node, allow_graceful=False)
    finally:
        may_end.set()
