"""A mistake that only a worker can see ends the run in one line; a bug in a user's step shows only the lines of that step."""

import sys

import pyarrow as pa
import pytest

from tests.engine.site import picture
from vlmdata.cli import main
from vlmdata.engine.work.own_steps import run_step
from vlmdata.errors import OwnCodeFailed, RecipeError
from vlmdata.row import conform

MODULE = '''
from dataclasses import dataclass
from typing import ClassVar
import pyarrow as pa
from vlmdata.step import RecipeError, Step

@dataclass(frozen=True, kw_only=True)
class Shout(Step):
    """Fails as `kind` says."""

    reads: ClassVar = ("texts",)
    writes: ClassVar = {"": pa.int64()}
    kind: str

    def measure(self, rows, context):
        lengths = [len(row[1]["text"]) for row in rows["texts"].to_pylist()]
        if self.kind == "recipe":
            raise RecipeError("shout: the list of words is in the wrong language")
        if self.kind == "file":
            open("/nowhere/words.txt")
        if self.kind == "short":
            return {"": pa.array([1], pa.int64())}
        return {"": pa.array([12 // (length - 3) for length in lengths])}
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    for number in range(5):
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(picture(number))
        (tmp_path / "pictures" / f"{number}.txt").write_text("cat" if number == 3 else "a cat on a mat")
    (tmp_path / "own_shout.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:" + ":".join(sys.path))
    yield tmp_path
    sys.modules.pop("own_shout", None)


def rows_of(texts: list[str]) -> pa.Table:
    table = pa.table(
        {
            "images": [[{"url": f"http://a.org/{number}.jpg"}, None] for number in range(len(texts))],
            "texts": [[None, {"text": text}] for text in texts],
        }
    )
    return conform(table)


def test_a_bug_in_a_users_step_names_the_step_and_the_row_and_shows_only_its_lines(folder):
    import own_shout

    step = own_shout.Shout(kind="bug")
    with pytest.raises(OwnCodeFailed) as caught:
        run_step(step, lambda rows: step.measure(rows, None), rows_of(["a dog", "a cat", "cat", "a bird"]))
    first, *lines = str(caught.value).splitlines()
    assert first == "step own_shout (own_shout.Shout) failed at the row http://a.org/2.jpg:"
    assert lines[-1].startswith("ZeroDivisionError: ")
    files = [line.split('"')[1] for line in lines if line.startswith("  File ")]
    assert set(files) == {str(folder / "own_shout.py")}


def test_an_error_that_a_step_raises_on_purpose_is_not_changed(folder):
    import own_shout

    for kind, error in (("recipe", RecipeError), ("file", FileNotFoundError)):
        step = own_shout.Shout(kind=kind)
        with pytest.raises(error):
            run_step(step, lambda rows: step.measure(rows, None), rows_of(["a"]))  # noqa: B023


@pytest.mark.whole
@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("bug", ["vlmdata: step own_shout (own_shout.Shout) failed at the row 3.jpg:", "ZeroDivisionError: "]),
        ("recipe", ["vlmdata: shout: the list of words is in the wrong language"]),
        (
            "file",
            ["vlmdata: FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/words.txt'. Fix this and run"],
        ),
        ("short", ["vlmdata: step own_shout: `measure` returned 1 values of '' for 5 rows"]),
    ],
)
def test_an_error_in_a_worker_is_reported_without_the_traceback_of_vlmdata(folder, capsys, kind, lines):
    (folder / "r.yaml").write_text(f"source: {{type: files, path: pictures}}\nsteps: [{{own_shout.Shout: {{kind: {kind}}}}}]\n")
    assert main(["run", "r.yaml", "--out", "out", "--local", "--workers", "1"]) == 1
    written = capsys.readouterr().err
    assert "Traceback" not in written and "worker.py" not in written
    for line in lines:
        assert any(one.startswith(line) for one in written.splitlines()), written
