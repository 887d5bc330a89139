"""Two ranks read a start: each reads its own share, has memory for no more, and has the values of a model on one rank."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.train.published import write_published
from tests.train.runs import write_data
from vlmdata_train.loop.loop import run_training
from vlmdata_train.recipe_file import load

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.whole
LORA = {"language": {"lora": {"rank": 4, "alpha": 32}}, "abstractor": {"frozen": True}}


def on_ranks(ranks: int, what: str, folder: Path, cases: list[dict[str, Any]]) -> list[Any]:
    """Run the program on ranks and return its results."""
    given, out = folder / "cases.json", folder / "results.json"
    given.write_text(json.dumps(cases))
    words = ["tests.train.start_on_ranks", what, str(out), str(given)]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results: list[Any] = json.loads(out.read_text())
    return results


def test_sharded_ranks_have_the_weights_of_a_start_bit_for_bit(tmp_path: Path) -> None:
    """BLIP-2's files have a tensor of another shape and a tied output layer, and those of Llama 3.2 Vision have fewer rows."""
    families = ("BLIP-2", "Llama 3.2 Vision", "Qwen2-VL")
    starts = {name: str(write_published(name, tmp_path / name)) for name in families}
    run = {
        "start": starts["Qwen2-VL"], "data": write_data(tmp_path / "data", captions=0, conversations=12), "lr": 1e-2,
        "out": str(tmp_path / "run"), "epochs": None, "steps": 2, "batches": {"tokens": 512, "sample_tokens": 256},
        "parts": LORA, "speed": {"device": "cpu", "precision": "bf16"}, "held_out": {}, "logs.tensorboard": False,
    }  # fmt: skip
    trained = str(run_training(load("instruct", overrides=run)).checkpoint)
    cases: list[dict[str, Any]] = [{"start": start, "speed.precision": "fp32"} for start in starts.values()]
    cases += [{"start": starts["BLIP-2"], "parts": LORA}]
    cases += [{"start": starts["Llama 3.2 Vision"], "parts": {"fusion": LORA["language"]}}]  # its gates are frozen
    cases += [{"start": trained, "model": None, "parts": parts} for parts in ({}, LORA)]
    results = on_ranks(2, "equal", tmp_path, cases)
    for changes, result in zip(cases, results, strict=True):
        assert [rank["differ"] for rank in result] == [[], []], changes
        assert max(rank["share"] for rank in result) < 0.55, changes
    assert results[0][0]["tied"] == 1


@pytest.mark.slow
def test_a_rank_needs_memory_for_its_share_and_one_file(tmp_path: Path) -> None:
    free = int(next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line))
    if free < 5 << 20:
        pytest.skip(f"needs 5 GiB of free memory, but only {free / 2**20:.1f} GiB are free")
    tiny, big = write_published("Qwen2-VL", tmp_path / "tiny"), tmp_path / "big"
    subprocess.run([sys.executable, "-m", "tests.train.start_on_ranks", "make", str(big)], cwd=ROOT, check=True)
    files = [path.stat().st_size for path in big.glob("model-*.safetensors")]
    assert len(files) == 4 and sum(files) > 2e9
    cases = [{"start": str(tiny)}, *({"start": str(big), "speed.precision": kind} for kind in ("fp32", "bf16"))]
    for ranks in (2, 1):
        for result in on_ranks(ranks, "memory", tmp_path, cases):
            print(ranks, result)
            assert len(result) == ranks
            for rank in result:
                assert rank["peak"] <= (1.2 if ranks > 1 else 1) * rank["share"] + max(files)
