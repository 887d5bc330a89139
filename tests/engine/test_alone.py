"""Only one process at a time changes a dataset, in a folder or on an object store, and samples taken down stay removed."""

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from tests.engine.site import download, ledger, manifest, site
from tests.test_forget import samples, traces
from vlmdata import run
from vlmdata.audit import audit
from vlmdata.engine.output.manifest import alone
from vlmdata.engine.partitions.calls import PartitionCall, RunJob
from vlmdata.engine.store import lease as leases
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.engine.store.lease import Lease
from vlmdata.engine.work.worker import Worker
from vlmdata.recipe import load
from vlmdata.takedown import forget

pytestmark = pytest.mark.whole


@pytest.fixture
def out(tmp_path):
    with site(tmp_path, 32, samples=10, steps=[{"text_length": {}}, download(), {"resize": {"size": 48}}]) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=1)
    return tmp_path / "out"


def kept(out: Path) -> list[dict]:
    return [line for line in ledger(out) if line["outcome"] == "kept"]


def test_a_takedown_waits_for_the_process_that_holds_the_lock_and_reports_it(out):
    line = kept(out)[3]
    with alone(LocalStore(out)):
        command = [sys.executable, "-m", "vlmdata.cli", "forget", str(out), "--url", line["url"]]
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert "locked by process" in waiting.stderr.readline()
        assert line in ledger(out)
    assert waiting.wait() == 0 and "1 row forgotten" in waiting.stdout.read()
    assert line["key"] not in samples(out)


def test_concurrent_runs_with_different_recipes_leave_a_complete_dataset(out):
    recipe = out.parent / "recipe.yaml"
    command = [sys.executable, "-m", "vlmdata.cli", "run", str(recipe), "--out", str(out), "--local", "--workers", "1"]
    settings = [["--set", f"text_length.min_chars={chars}"] for chars in (26, 10, 25)]
    runs = [subprocess.Popen([*command, *one], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for one in settings]
    assert [one.wait() for one in runs] == [0, 0, 0]
    assert audit(out, read_bytes=True) == []


HOLDING = """
import pathlib, sys, time
from vlmdata.engine.store.lease import Lease
from vlmdata.engine.store.folder_store import LocalStore
with Lease(LocalStore(pathlib.Path(sys.argv[1])), "lease", print):
    print("held", flush=True)
    time.sleep(999)
"""


def nobody(holder: str) -> None:
    raise AssertionError(f"{holder} holds it")


def test_a_process_waits_for_a_lease_and_each_holder_writes_a_new_record(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "POLL_S", 0.01)
    store, messages, order = LocalStore(tmp_path), queue.SimpleQueue(), []

    def second() -> None:
        with Lease(store, "lease", messages.put):
            order.append("second")

    with Lease(store, "lease", nobody) as first:
        thread = threading.Thread(target=second)
        thread.start()
        assert messages.get(timeout=600).startswith("process ")
        order.append("first")
        assert first.is_held()
    thread.join()
    assert order == ["first", "second"]
    assert store.list("lease") == ["lease/000000002.json"]
    with Lease(store, "lease", nobody):
        assert store.list("lease") == ["lease/000000003.json"]


def test_the_lease_of_a_process_killed_on_this_machine_is_taken_at_once(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.wait()
    with Lease(LocalStore(tmp_path), "lease", nobody) as mine:
        assert mine.is_held()


def test_a_lease_without_heartbeat_is_taken_over_and_its_holder_notices(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT_S", 1000.0)
    monkeypatch.setattr(leases, "SILENCE_S", 0.05)
    monkeypatch.setattr(leases, "POLL_S", 0.01)
    store = LocalStore(tmp_path)
    with Lease(store, "lease", nobody) as suspended:
        with Lease(store, "lease", lambda holder: None) as taken:
            assert taken.is_held() and not suspended.is_held()
        assert store.list("lease")[-1] == "lease/000000002.json"


def test_a_worker_of_a_dead_driver_does_not_restore_a_sample_taken_down_since(tmp_path):
    with site(tmp_path, 16, part_rows=16, steps=[download(), {"resize": {"size": 48}}]) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=1)
        out = tmp_path / "out"
        line = kept(out)[2]
        # The size changes what is measured, so the zombie has all images to process.
        recipe = load(web.recipe, {"resize.size": 40})
        zombie = Worker(RunJob(recipe, str(out)))
        zombie.rate_limiter = _rate_limiter(recipe)
        forget(out, url=[line["url"]])
        with pytest.raises(OSError, match="taken down during this run"):
            zombie.advance(PartitionCall(0, None, 1, ()))
        zombie.close()
    body = web.bodies[line["url"].removeprefix(web.server.url(""))]
    assert traces(out, line["url"].encode(), body[-200:-100], line["images"][0]["sha256"].encode()) == []


def _rate_limiter(recipe):
    from vlmdata.web.rate_limiter import RateLimiter

    return RateLimiter(recipe.steps[0])


@pytest.mark.parametrize("by", ["url", "key"])
def test_a_merge_omits_a_sample_that_one_of_its_sources_has_forgotten(out, tmp_path, by):
    import shutil

    shutil.copytree(out, tmp_path / "copy")  # the copy still holds the forgotten sample
    line = kept(out)[4]
    forget(out, **{by: line[by]})
    recipe = tmp_path / "merge.yaml"
    source = {"type": "webdataset", "path": [str(out), str(tmp_path / "copy")]}
    recipe.write_text(yaml.safe_dump({"source": source, "steps": [{"resize": {"mode": "no", "skip_reencode": True}}]}))
    run(recipe, tmp_path / "merged", local=True, workers=1)
    assert manifest(tmp_path / "merged")["kept"] == 2 * (len(kept(tmp_path / "copy")) - 1)
    sources = {json.loads(sample["json"])["source_key"] for sample in samples(tmp_path / "merged").values()}
    assert line["key"] not in sources and len(sources) == len(kept(tmp_path / "copy")) - 1
    assert traces(tmp_path / "merged", line["url"].encode()) == []
