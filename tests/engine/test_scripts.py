"""A script may call `run` at its top level, as the README shows, although workers are started as other Python processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.site import picture

ROOT = Path(__file__).parents[2]

PLAIN = """
print("script")
from vlmdata import run
made = run("captions_folder", "out", overrides={"source.path": "pictures"}, local=True, workers=2)
print(made["kept"])
"""

OWN_STEP = """
from dataclasses import dataclass
from vlmdata.recipe import Recipe, Shards
from vlmdata import run
from vlmdata.sources.files import Files
from vlmdata.step import Step

@dataclass(frozen=True, kw_only=True)
class Mine(Step):
    reads = ("texts",)

def main():
    made = run(Recipe(Files(path="pictures"), (Mine(),), Shards(), 100), "out", local=True, workers=1)
    print(made["kept"])
"""


@pytest.fixture
def script(tmp_path):
    """Return a function that runs a script in a folder with three pictures."""
    for number in range(3):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(picture(number, 300))
        (tmp_path / "pictures" / f"{number}.txt").write_text(f"a picture with the number {number}")

    def call(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "script.py").write_text(text)
        environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )

    return call


@pytest.mark.whole
def test_a_script_that_calls_run_at_its_top_level_runs_once(script, tmp_path):
    done = script(PLAIN)
    assert (done.returncode, done.stdout) == (0, "script\n3\n"), done.stderr
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["kept"] == 3


@pytest.mark.whole
def test_a_script_that_defines_a_step_is_imported_by_the_workers(script):
    guarded = OWN_STEP + "if __name__ == '__main__':\n    main()\n"
    done = script(guarded)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


@pytest.mark.whole
def test_a_script_that_defines_a_step_and_lacks_the_guard_says_so(script):
    done = script(OWN_STEP + "main()\n")
    assert done.returncode == 1 and "Put the call below `if __name__ == '__main__':`" in done.stderr


@pytest.mark.whole
def test_a_lock_that_a_library_makes_in_a_worker_is_no_leak(script):
    """tqdm makes such a lock. Workers end without the interpreter's shutdown, which would remove a named semaphore."""
    locking = OWN_STEP.replace(
        "    reads =", "    def decide(self, rows):\n        LOCKS.append(Lock())\n        return rows\n\n    reads ="
    )
    header = "from multiprocessing import Lock\nLOCKS = []\n"
    done = script(f"{header}{locking}if __name__ == '__main__':\n    main()\n")
    assert (done.returncode, done.stdout) == (0, "3\n") and "leaked" not in done.stderr, done.stderr
