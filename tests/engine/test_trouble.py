"""The disk is full, memory is short, the clock jumps or permissions are lost: the run ends in one clear line and a later run
resumes."""

import contextlib
import io
import os
import subprocess
import sys

import pytest
from PIL import Image

from tests.engine.dying import DIED, dying_run, in_process, jumping_clock, little_memory, spoiled_run
from tests.engine.site import hashes, site
from vlmdata.engine.drive.driver import WorkFailed, result_of
from vlmdata.engine.drive.workers import Ended
from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError

pytestmark = pytest.mark.whole


@pytest.fixture(scope="session")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trouble")
    with site(folder, 64, part_rows=8) as web:
        assert dying_run(web.recipe, folder / "undisturbed", None) == 0
        web.expected = hashes(folder / "undisturbed")
        yield web


def run(web, out) -> tuple[int, str]:
    """Run the command and return its status and the last line of its output."""
    command = [sys.executable, "-m", "vlmdata.cli", "run", str(web.recipe), "--out", str(out), "--local", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


def mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"may not mount here: {done.stderr.strip()}")


@contextlib.contextmanager
def disk(folder, size: str):
    """Mount a small new file system at a folder."""
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size}", "vlmdata-test", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


# the disk becomes full during planning, during fetching or during packing
@pytest.mark.parametrize("size", ["48k", "180k", "320k"])
def test_a_full_disk_is_reported_in_one_line_and_a_later_run_resumes(web, tmp_path, size):
    with disk(tmp_path / "disk", size):
        (tmp_path / "disk" / "out" / "work").mkdir(parents=True)  # a run that is resumed is not refused by the estimate
        status, last = run(web, tmp_path / "disk" / "out")
        assert status == 1 and "No space left" in last and "it resumes" in last
        mount("-o", "remount,size=100m", str(tmp_path / "disk"))
        assert run(web, tmp_path / "disk" / "out")[0] == 0
        assert hashes(tmp_path / "disk" / "out") == web.expected


@pytest.mark.parametrize("change", [10, 60])
def test_a_folder_that_became_read_only_is_reported_and_a_later_run_resumes(web, tmp_path, change):
    with contextlib.ExitStack() as stack:
        folder = tmp_path / "disk"
        if os.geteuid() == 0:  # root is refused only by the file system itself
            stack.enter_context(disk(folder, "100m"))
        out = folder / "out"
        assert dying_run(web.recipe, out, change) == DIED
        if os.geteuid() == 0:
            mount("-o", "remount,ro", str(folder))
        else:
            folders = [out, *(path for path in out.rglob("*") if path.is_dir())]
            for path in folders:
                path.chmod(0o500)
        status, last = run(web, out)
        assert status == 2 and ("Read-only" in last or "Permission denied" in last or "cannot be written" in last)
        if os.geteuid() == 0:
            mount("-o", "remount,rw", str(folder))
        else:
            for path in folders:
                path.chmod(0o700)
        assert run(web, out)[0] == 0 and hashes(out) == web.expected


def _decode_with_little_memory(data: bytes) -> None:
    little_memory(100_000_000)
    try:
        decode(data, max_memory_mb=1000)
    except MemoryError:
        sys.exit(7)
    except ImageError:
        sys.exit(8)


def test_too_little_memory_does_not_drop_an_image():
    """A picture of 81 million pixels takes 243 MB to decode."""
    large = io.BytesIO()
    Image.new("RGB", (9000, 9000), (200, 100, 50)).save(large, "PNG")
    assert in_process(_decode_with_little_memory, large.getvalue()) == 7


def test_a_shortage_in_a_worker_is_reported_in_one_line():
    error = "OSError: [Errno 28] full"
    with pytest.raises(WorkFailed) as caught:
        result_of(Ended(0, 0, error=f"Traceback (most recent call last):\n  File ...\n{error}"))
    assert str(caught.value) == f"{error}. Fix this and run the same command again; it resumes."


def test_a_clock_that_jumps_changes_no_byte(web, tmp_path):
    assert spoiled_run(web.recipe, tmp_path / "out", jumping_clock, tmp_path / "output") == 0
    assert hashes(tmp_path / "out") == web.expected
