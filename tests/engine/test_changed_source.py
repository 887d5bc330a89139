"""A tar that is removed, cut or replaced during a run ends it in one line, and the same command resumes once it is back."""

import os
import sys
from pathlib import Path

import pytest

from tests.engine.site import picture
from tests.loader.tars import write_tar
from vlmdata.cli import main
from vlmdata.dataset import read_manifest

pytestmark = pytest.mark.whole

MODULE = '''
import os
from dataclasses import dataclass
from typing import ClassVar
import pyarrow as pa
from vlmdata.step import Step

@dataclass(frozen=True, kw_only=True)
class Spoil(Step):
    """Moves the tar away once, before its images are read, and puts the file `other` in its place."""

    reads: ClassVar = ("texts",)
    writes: ClassVar = {"": pa.int64()}
    tar: str
    other: str

    def measure(self, rows, context):
        if not os.path.exists(self.tar + ".kept"):
            os.rename(self.tar, self.tar + ".kept")
            if os.path.exists(self.other):
                os.rename(self.other, self.tar)
        return {"": pa.array([1] * len(rows), pa.int64())}
'''
RECIPE = """
source: {{type: webdataset, path: {tar}}}
steps: [{{own_spoil.Spoil: {{tar: {tar}, other: {other}}}}}, resize]
"""


def samples(first: int) -> list[tuple[str, bytes]]:
    files = ((f"{n}.{end}", n, end) for n in range(first, first + 6) for end in ("jpg", "txt"))
    return [(name, picture(n) if end == "jpg" else f"a picture with the number {n}".encode()) for name, n, end in files]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "own_spoil.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:" + ":".join(sys.path))
    yield tmp_path
    sys.modules.pop("own_spoil", None)


@pytest.mark.parametrize("how", ["removed", "cut", "replaced"])
def test_a_tar_that_changes_during_a_run_is_named_and_the_run_resumes(folder: Path, capsys, how: str) -> None:
    tar, other, kept = folder / "a.tar", folder / "b.tar", folder / "a.tar.kept"
    write_tar(tar, samples(0))
    if how == "cut":
        other.write_bytes(tar.read_bytes()[:9000])
    if how == "replaced":
        write_tar(other, samples(10))
    (folder / "r.yaml").write_text(RECIPE.format(tar=tar, other=other))
    command = ["run", "r.yaml", "--out", "out", "--local", "--workers", "1", "-q"]
    assert main(command) == 1
    what = "removed" if how == "removed" else "changed"
    line = f"{tar} was {what} during the run. Put the file back, and run the same command again; it resumes"
    assert capsys.readouterr().err == f"vlmdata: {line}\n"
    os.link(kept, folder / "back")
    os.replace("back", tar)
    assert main(command) == 0 and read_manifest("out")["kept"] == 6


def test_a_source_that_changed_since_the_plan_was_made_is_named(folder: Path, capsys) -> None:
    tar = folder / "a.tar"
    write_tar(tar, samples(0))
    (folder / "own_spoil.py").unlink()
    (folder / "r.yaml").write_text(f"source: {{type: webdataset, path: {tar}}}\nsteps: [resize]\n")
    command = ["run", "r.yaml", "--out", "out", "--local", "--workers", "1", "-q"]
    assert main(command) == 0
    write_tar(tar, samples(0)[:6])
    os.utime(tar, (later := (folder / "out/work/plan.json").stat().st_mtime + 9, later))
    assert main(command) == 2
    assert f"If it is the same source, restore {tar}, which has changed since" in capsys.readouterr().err
