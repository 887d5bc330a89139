"""A tar that is removed, cut or replaced during a run ends it in one line, and the same command resumes once it is back."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.engine.site import picture
from tests.loader.tars import write_tar
from vlmdata.cli import main
from vlmdata.dataset import read_manifest
from vlmdata.engine.partitions.plan import make
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.work.source_files import SourceFiles, local_path
from vlmdata.errors import RecipeError
from vlmdata.recipe import Recipe, Shards
from vlmdata.sources.webdataset import Webdataset

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


@pytest.fixture
def planned(folder: Path) -> tuple[SourceFiles, Path]:
    """Return the check of a worker that starts now, and the tar of its plan, which is older than the plan."""
    (folder / "data").mkdir()
    write_tar(folder / "data/a.tar", samples(0))
    os.utime(folder / "data/a.tar", (1e9, 1e9))
    source, store = Webdataset(path="data/*.tar"), open_store("out")
    identity = make(Recipe(source, (), Shards(), 1000), store).source
    return SourceFiles(store, source, identity), folder / "data/a.tar"


def test_a_worker_that_starts_late_finds_a_replaced_tar(planned: tuple[SourceFiles, Path]) -> None:
    files, tar = planned
    write_tar(tar, samples(0)[:6])
    os.utime(tar, (4e9, 4e9))
    with pytest.raises(RecipeError, match=r"a\.tar was changed during the run"):
        files.check(str(tar))


def test_a_tar_that_is_added_after_the_plan_ends_no_run(planned: tuple[SourceFiles, Path]) -> None:
    files, tar = planned
    write_tar(tar.with_name("b.tar"), samples(6))
    files.check(str(tar))


def test_a_relative_path_may_lead_elsewhere_in_a_worker(planned: tuple[SourceFiles, Path], tmp_path, monkeypatch) -> None:
    files, tar = planned
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # as on the node of a Ray cluster that was started in another folder
    files.check(str(tar))


def test_a_file_system_may_give_the_same_tar_another_inode(planned: tuple[SourceFiles, Path]) -> None:
    files, tar = planned
    files.check(str(tar))
    shutil.copy2(tar, tar.with_name("copy"))
    os.replace(tar.with_name("copy"), tar)
    files.check(str(tar))


def test_a_file_that_is_gone_matters_only_if_it_was_read(planned: tuple[SourceFiles, Path]) -> None:
    files, tar = planned
    tar.unlink()
    files.note(str(tar))
    with pytest.raises(RecipeError, match=r"a\.tar was removed during the run"):
        files.check(str(tar))


def test_a_file_that_changes_after_it_was_noted_is_found(planned: tuple[SourceFiles, Path]) -> None:
    files, tar = planned
    files.note(str(tar))
    os.utime(tar, (1e9, 1e9 + 1))
    with pytest.raises(RecipeError, match=r"a\.tar was changed during the run"):
        files.check(str(tar))


def test_the_pieces_of_a_source_that_a_user_wrote_are_not_compared(tmp_path: Path) -> None:
    class Own(Webdataset):
        pass

    piece = {"path": str(tmp_path / "prefix-of-files")}
    assert local_path(Webdataset(path="x"), piece) == piece["path"] and local_path(Own(path="x"), piece) is None
