"""Each GPU has one worker, and only such workers use models. The GPUs are fake: the tests check which worker gets which GPU."""

import pytest

from tests.engine.nodes import nodes
from tests.engine.site import download, ledger, manifest, site
from vlmdata import run
from vlmdata.engine.drive.gpus import visible_gpus
from vlmdata.engine.work.compile_recipe import BoundStep
from vlmdata.models import find_gpus
from vlmdata.steps.clip_score import ClipScore
from vlmdata.steps.text_in_image import TextInImage

pytestmark = pytest.mark.whole


def steps(folder) -> list:
    (folder / "meet").mkdir()
    which = {"label": "gpu", "meet": str(folder / "meet")}
    return [download(), {"resize": {"size": 48}}, {"tests.engine.which_gpu.WhichGpu": which}]


def used(out) -> set[str | None]:
    return {line["gpu"] for line in ledger(out) if line["outcome"] == "kept"}


def test_each_gpu_has_one_local_worker_and_further_workers_have_none(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with site(tmp_path, 96, steps=steps(tmp_path), part_rows=4) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=3)
    assert used(tmp_path / "out") == {"4", "7"}
    assert manifest(tmp_path / "out")["models"] == {"gpu": [{"model": "none"}]}


def test_each_actor_on_ray_has_one_gpu(tmp_path):
    head = {"num_cpus": 3, "num_gpus": 2}
    with nodes(head) as (cluster, _), site(tmp_path, 96, steps=steps(tmp_path), part_rows=4) as web:
        run(web.recipe, tmp_path / "out", address=cluster.address)
    assert used(tmp_path / "out") == {"0", "1"}


def test_a_model_that_uses_no_gpu_runs_on_all_workers():
    steps = (TextInImage(), ClipScore())
    assert [(step.needed(), BoundStep(step, "measurement").kind) for step in steps] == [
        (("model",), "rows"),
        (("model", "gpu"), "model"),
    ]


def test_only_gpus_in_cuda_visible_devices_are_used(monkeypatch):
    for given, expected in (("", []), ("-1", []), ("2, 3", ["2", "3"]), ("GPU-8f1c", ["GPU-8f1c"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert visible_gpus() == expected


def test_gpus_are_counted_by_device_files_or_else_by_the_list_of_the_driver(tmp_path, monkeypatch):
    """Check a machine without GPUs, a sandbox that shows only the driver's list, and a container with one GPU of eight."""
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
