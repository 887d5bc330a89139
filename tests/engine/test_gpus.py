"""Each GPU has a worker of its own, and models are used there alone. GPUs are made up: what is held is who is given which."""

import pytest

from tests.engine.nodes import nodes
from tests.engine.site import download, ledger, manifest, site
from vlmdata import run
from vlmdata.engine.drive.gpus import visible_gpus
from vlmdata.models import find_gpus

pytestmark = pytest.mark.whole


def steps(folder) -> list:
    (folder / "meet").mkdir()
    which = {"label": "gpu", "meet": str(folder / "meet")}
    return [download(), {"resize": {"size": 48}}, {"tests.engine.which_gpu.WhichGpu": which}]


def used(out) -> set[str | None]:
    return {line["gpu"] for line in ledger(out) if line["outcome"] == "kept"}


def test_local_workers_have_a_gpu_each_and_the_others_do_without(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with site(tmp_path, 96, steps=steps(tmp_path), part_rows=4) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=3)
    assert used(tmp_path / "out") == {"4", "7"}
    assert manifest(tmp_path / "out")["models"] == {"gpu": [{"model": "none"}]}


def test_on_ray_actors_have_a_gpu_each(tmp_path):
    head = {"num_cpus": 3, "num_gpus": 2}
    with nodes(head) as (cluster, _), site(tmp_path, 96, steps=steps(tmp_path), part_rows=4) as web:
        run(web.recipe, tmp_path / "out", address=cluster.address)
    assert used(tmp_path / "out") == {"0", "1"}


def test_the_gpus_are_those_that_the_environment_allows(monkeypatch):
    for given, expected in (("", []), ("-1", []), ("2, 3", ["2", "3"]), ("GPU-8f1c", ["GPU-8f1c"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert visible_gpus() == expected


def test_gpus_are_counted_by_the_devices_that_were_given_else_by_what_the_driver_lists(tmp_path, monkeypatch):
    """A container with one GPU of eight, a sandbox that shows only the list, a machine without any."""
    devices, listed = tmp_path / "dev", tmp_path / "gpus"
    monkeypatch.setattr(find_gpus, "DEVICES", devices)
    monkeypatch.setattr(find_gpus, "LISTED", listed)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == []
    for number in range(8):
        (listed / f"0000:{number}b:00.0").mkdir(parents=True)
    assert visible_gpus() == [str(number) for number in range(8)]
    devices.mkdir()
    for name in ("nvidia3", "nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (devices / name).touch()
    assert visible_gpus() == ["0"]
