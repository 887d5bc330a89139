"""Settings for all tests: temporary folders replace the user's, nothing is written elsewhere, and generated examples do not
vary.

With xdist the first process sets the environment and the workers inherit it.
"""

from __future__ import annotations

import atexit
import gc
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" not in os.environ:
    from tests.own_folders import use_own_folders

    atexit.register(shutil.rmtree, use_own_folders(), ignore_errors=True)
    # Keep bytecode even if the environment forbids it, as in container images. Without it each worker rewrites all
    # assertions again, which takes five CPU seconds, and hundreds of child processes compile the package again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False

from hypothesis import HealthCheck, settings  # imported only now, because these modules may read the environment

from tests.outside import Outside
from vlmdata.engine.drive.processes import CONTEXT

# A shell starts background jobs with Ctrl-C ignored, and child processes inherit that. Some tests send Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Every run has the same generated examples without time limits, so that results do not depend on chance or on the load of the
# machine. `make chaos` uses the other profile with new random examples.
settings.register_profile("suite", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("chaos", settings.get_profile("suite"), derandomize=False)
settings.load_profile("suite")

# Hundreds of worker processes are forked from one that has imported this; open_clip alone takes six CPU seconds to import.
CONTEXT.set_forkserver_preload(["vlmdata.engine.work.worker", "tests.engine.dying", "open_clip", "datasets"])


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument. They may contain the time of day, which would give each parallel worker other ids."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Turn garbage collection off while tests are imported, and exclude what was imported. This saves two of ten CPU seconds
    per worker."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse test names that contain a memory address or a temporary folder, because such names differ between processes."""
    changing = re.compile(rf" at 0x[0-9a-f]+|{re.escape(tempfile.gettempdir())}")
    names = [item.nodeid for item in items if changing.search(item.nodeid)]
    if names:
        raise pytest.UsageError(f"another run would have other names for these tests, give `ids`: {names}")


@pytest.fixture(scope="session", autouse=True)
def done_outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Watch from before the first fixture until after the last."""
    with Outside([Path(tempfile.gettempdir()).parent, tmp_path_factory.getbasetemp()]).watched() as seen:
        yield seen


@pytest.fixture(autouse=True)
def nothing_outside(done_outside: list[str]) -> Iterator[None]:
    """Fail a test if it or its fixtures write outside the run's folders or connect to another machine."""
    yield
    found = done_outside.copy()
    done_outside.clear()
    assert not found, "the test or a fixture wrote outside its folders or connected to another machine: use tmp_path, loopback"
