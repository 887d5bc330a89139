"""A script that ends with the first sample in hand ends well and silently, whatever reads ahead."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.loader.tars import caption_set
from vlmdata.loader.index.build_index import build_index

pytestmark = pytest.mark.whole

LAST_LINES = [
    "next(iter(stream(PATH, cache=CACHE)))",
    "next(iter(stream(PATH, cache=CACHE, torch=False, threads=4)))",
    "kept = iter(stream(PATH, cache=CACHE, threads=4, batch_size=2)); next(kept)",
    "next(iter(stream(PATH, cache=CACHE, batch_size=2).loader(num_workers=1)))",
    "kept = iter(DataLoader(stream(PATH, cache=CACHE, batch_size=2), batch_size=None, num_workers=1)); next(kept)",
]


@pytest.mark.parametrize("line", LAST_LINES)
@pytest.mark.parametrize("is_remote", [False, True])
def test_the_last_line_of_a_script(tmp_path: Path, line: str, is_remote: bool) -> None:
    folder = caption_set(tmp_path / "tars", [300, 300], size=4000)
    build_index(folder)
    path = f"file://{folder}" if is_remote else str(folder)
    given = f"PATH, CACHE = {path!r}, {str(tmp_path / 'cache')!r}"
    script = "\n".join(["from torch.utils.data import DataLoader", "from vlmdata import stream", given, line])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
