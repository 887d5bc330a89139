"""A script that exits after the first sample exits cleanly and silently, with every kind of prefetch."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.loader.tars import caption_set
from vlmdata.loader.index.build_index import build_index

pytestmark = pytest.mark.whole

LAST_LINES = [
    "next(iter(stream(PATH, reading=ReadOptions(cache=CACHE))))",
    "next(iter(stream(PATH, reading=ReadOptions(threads=4, cache=CACHE), torch=False)))",
    "kept = iter(stream(PATH, batch_size=2, reading=ReadOptions(threads=4, cache=CACHE))); next(kept)",
    "next(iter(stream(PATH, batch_size=2, reading=ReadOptions(cache=CACHE)).loader(num_workers=1)))",
    "samples = stream(PATH, batch_size=2, reading=ReadOptions(cache=CACHE))\n"
    "kept = iter(DataLoader(samples, batch_size=None, num_workers=1)); next(kept)",
]


@pytest.mark.parametrize("line", LAST_LINES)
@pytest.mark.parametrize("is_remote", [False, True])
def test_a_script_that_exits_after_one_sample_exits_cleanly(tmp_path: Path, line: str, is_remote: bool) -> None:
    folder = caption_set(tmp_path / "tars", [300, 300], size=4000)
    build_index(folder)
    path = f"file://{folder}" if is_remote else str(folder)
    given = f"PATH, CACHE = {path!r}, {str(tmp_path / 'cache')!r}"
    imports = [
        "from torch.utils.data import DataLoader",
        "from vlmdata import stream",
        "from vlmdata.loader.stream import ReadOptions",
    ]
    script = "\n".join([*imports, given, line])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
