"""A run on a cluster stops before work if a node has another version of vlmdata than the driver."""

import os
import re

import pytest

from tests.engine.nodes import nodes
from vlmdata import run
from vlmdata.engine.drive import on_ray
from vlmdata.engine.drive.on_ray import other_versions
from vlmdata.errors import WorkFailed
from vlmdata.recipe import parse
from vlmdata.step import RecipeError
from vlmdata.version import version

pytestmark = pytest.mark.whole


def test_a_line_names_the_first_node_that_differs_and_the_fix():
    fix = "Install the same version on all nodes and start Ray there again"
    assert other_versions([("10.0.0.1", "0.3.0"), ("10.0.0.2", "0.3.0")], "0.3.0") == ""
    one = other_versions([("10.0.0.1", "0.3.0"), ("10.0.0.2", "0.2.0")], "0.3.0")
    assert one == f"the Ray node 10.0.0.2 has vlmdata 0.2.0, but this process has vlmdata 0.3.0. {fix}"
    two = other_versions([("10.0.0.1", None), ("10.0.0.2", "0.2.0")], "0.3.0")
    assert two == f"the Ray node 10.0.0.1 has no vlmdata, but this process has vlmdata 0.3.0. Another node differs too. {fix}"
    assert "2 more nodes differ too" in other_versions([("a", None), ("b", None), ("c", None)], "0.3.0")


def path_of_another_version(tmp_path) -> str:
    about = tmp_path / "other" / "vlmdata-9.9.9.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vlmdata\nVersion: 9.9.9\n")
    return os.pathsep.join([str(about.parent), os.environ.get("PYTHONPATH", "")])


@pytest.fixture
def other(tmp_path):
    """Yield the address of a cluster whose only CPU is on a node that has version 9.9.9."""
    path = path_of_another_version(tmp_path)
    with nodes({"num_cpus": 0}, {"num_cpus": 1, "env_vars": {"PYTHONPATH": path}}) as (cluster, _):
        yield cluster.address


def recipe(folder):
    (folder / "a.csv").write_text("url,caption\nhttps://e.example/a.jpg,a cat\n")
    return parse({"source": {"type": "url_list", "path": str(folder / "a.csv")}, "steps": ["text_length"]})


LINE = rf"^the Ray node [\d.]+ has vlmdata 9\.9\.9, but this process has vlmdata {re.escape(version())}\. Install the same"


@pytest.mark.slow
def test_a_node_with_another_version_stops_a_run_before_work(tmp_path, other):
    with pytest.raises(RecipeError, match=LINE):
        run(recipe(tmp_path), tmp_path / "out", address=other)
    assert not list((tmp_path / "out" / "work").glob("data/*"))


@pytest.mark.slow
def test_a_node_with_another_version_that_joins_later_ends_a_run(tmp_path, other, monkeypatch):
    monkeypatch.setattr(on_ray, "check_versions", lambda: None)  # as if the node had not been there yet
    with pytest.raises(WorkFailed, match=LINE):
        run(recipe(tmp_path), tmp_path / "out", address=other)


@pytest.mark.slow
def test_a_cluster_of_the_same_version_runs(tmp_path):
    with nodes({"num_cpus": 1}) as (cluster, _):
        assert run(recipe(tmp_path), tmp_path / "out", address=cluster.address)["rows"] == 1


@pytest.mark.slow
def test_a_node_without_cpus_may_have_another_version(tmp_path):
    head = {"num_cpus": 0, "env_vars": {"PYTHONPATH": path_of_another_version(tmp_path)}}
    with nodes(head, {"num_cpus": 1}) as (cluster, _):
        assert run(recipe(tmp_path), tmp_path / "out", address=cluster.address)["rows"] == 1
