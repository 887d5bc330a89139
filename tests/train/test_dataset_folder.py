"""Training reads a dataset's folder and writes nothing into it. In a folder with Energon's splits it reads the named split."""

import json
import os
import shutil
from pathlib import Path

import pytest

from bench.inputs.tars import jpeg
from tests.train.runs import tiny_recipe, write_data
from tests.train.shards import drawing
from tests.train.test_loop_log import records
from vlmdata import run
from vlmdata.loader.index.build_index import build_index
from vlmdata_train.evaluate import evaluate_checkpoint
from vlmdata_train.loop.loop import run_training

pytestmark = pytest.mark.whole


def listed(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every file and folder below a folder, with sizes and times."""
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def finished(folder: Path) -> str:
    """Make a dataset of `vlmdata run` with its manifest."""
    for n in range(12):
        (folder / "in").mkdir(parents=True, exist_ok=True)
        (folder / f"in/{n}.jpg").write_bytes(jpeg(drawing("red", "square", 32 + n)))
        (folder / f"in/{n}.txt").write_text(f"a red square, number {n}")
    recipe = {
        "source": {"type": "files", "path": str(folder / "in")},
        "steps": [],
        "shards": {"layout": "captions", "samples": 4},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    run(folder / "recipe.yaml", folder / "out", local=True, workers=1)
    return str(folder / "out")


def with_index(folder: Path) -> str:
    build_index(data := write_data(folder))
    return data


@pytest.mark.parametrize("make", [finished, with_index, write_data])
def test_training_writes_nothing_into_the_folder(tmp_path, make):
    data = make(tmp_path / "set")
    before = listed(Path(data))
    for path in (data, *(os.path.join(data, name) for name in before)):
        os.chmod(path, 0o555 if os.path.isdir(path) else 0o444)
    for batches in ({"tokens": 192, "sample_tokens": 96}, {"pack": False, "samples": 2, "sample_tokens": 96}):
        held_out = {"fraction": 0.3, "every": 2, "answers": 2}
        out = tmp_path / f"run{len(batches)}"
        result = run_training(tiny_recipe(data, out, steps=2, batches=batches, held_out=held_out))
    evaluate_checkpoint(str(result.checkpoint), data, samples=2, answer_tokens=2, device="cpu")
    assert listed(Path(data)) == before


def test_one_split_is_trained_on_and_another_is_held_out(tmp_path):
    data = write_data(tmp_path / "set", captions=40, tars=4)
    os.mkdir(tmp_path / "set/.nv-meta")
    shutil.copytree(tmp_path / "set", tmp_path / "all")
    shutil.rmtree(tmp_path / "all/.nv-meta")
    split = "split_parts: {train: ['0000{0..2}.tar'], val: [00003.tar]}\nexclude: [00000.tar/000000]\n"
    (tmp_path / "set/.nv-meta/split.yaml").write_text(split)
    held_out = {"path": f"{data}#val", "every": 100, "answers": 3}
    result = run_training(tiny_recipe(data, tmp_path / "out", steps=None, epochs=1, held_out=held_out))
    logged = records(tmp_path / "out")
    assert [r["samples"] for r in logged if r["kind"] == "train"][-1] == 29  # three tars of ten samples, without one sample
    assert result.held_out == pytest.approx(run_loss(result.checkpoint, f"{tmp_path}/all/00003.tar"), rel=1e-3)


def run_loss(checkpoint: Path, data: str) -> float:
    """Return the held-out loss as evaluation reports it."""
    table = evaluate_checkpoint(str(checkpoint), data, samples=99, answer_tokens=1, device="cpu")
    return float(table.splitlines()[2].split()[2])
