"""Lightning reads a stream, and resumes at the very batch, in one process with a model of one weight."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.loader.tars import caption_set, flat, keys_of
from vlmdata import stream

lightning = pytest.importorskip("lightning", reason="lightning is not installed")
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

from vlmdata.loader.for_lightning import StreamData  # noqa: E402

pytestmark = pytest.mark.whole
NUMBERS: dict[str, int] = {f"{shard}-{number}": 100 * shard + number for shard in range(3) for number in range(30)}


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return caption_set(tmp_path_factory.mktemp("tars"), [13, 1, 8])  # 22 samples


class OneWeight(lightning.LightningModule):
    """Records what it trains on, in `seen`. It stops after `stop` batches."""

    def __init__(self, stop: int | None) -> None:
        super().__init__()
        self.weight, self.stop = nn.Parameter(torch.ones(1)), stop
        self.seen: list[list[int]] = []

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        if len(self.seen) == self.stop:
            raise KeyError("the end")
        self.seen.append(batch.tolist())
        return ((self.weight - batch / 100) ** 2).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def collate(samples: list[dict]) -> torch.Tensor:
    return torch.tensor([NUMBERS[sample["__key__"]] for sample in samples])


def train(data: Any, run: Path, stop: int | None = None, save: dict[str, Any] | None = None, **options: Any) -> OneWeight:
    """Return a model that was trained from the last checkpoint in `run`, if there is one, to its end or for `stop` batches."""
    checkpoints = ModelCheckpoint(run, save_top_k=-1, save_last=True, **(save or {"every_n_train_steps": 1}))
    settings = {"max_epochs": 3, "logger": False, "enable_progress_bar": False, "enable_model_summary": False, **options}
    trainer = lightning.Trainer(accelerator="cpu", devices=1, callbacks=[checkpoints], default_root_dir=run, **settings)
    model = OneWeight(stop)
    try:
        trainer.fit(model, datamodule=StreamData(data), ckpt_path="last")
    except KeyError:
        assert len(model.seen) == stop
    return model


def batches(tars: Path, **options: Any) -> Any:
    return stream(tars, batch_size=4, collate_fn=collate, **options)


def order(tars: Path, epochs: int) -> list[int]:
    return [NUMBERS[key] for key in keys_of(stream(tars, epochs=epochs, torch=False))]


@pytest.mark.parametrize("stop", [1, 5, 6, 7, 12])
@pytest.mark.parametrize("save", [{"every_n_train_steps": 1}, {"every_n_epochs": 1}], ids=["steps", "epochs"])
def test_lightning_resumes_at_the_batch_and_with_the_weights(tars: Path, tmp_path: Path, save: dict, stop: int) -> None:
    whole = train(batches(tars), tmp_path / "whole")
    epochs = order(tars, 4)
    assert flat(whole.seen) == [*epochs[:24], *epochs[22:46], *epochs[44:68]]
    first, then = train(batches(tars), tmp_path / "run", stop, save), train(batches(tars), tmp_path / "run", None, save)
    saved = stop if "every_n_train_steps" in save else stop // 6 * 6
    assert first.seen[:saved] + then.seen == whole.seen
    assert torch.equal(then.weight, whole.weight)


def test_dropped_samples_do_not_empty_an_epoch(tars: Path, tmp_path: Path) -> None:
    model = train(batches(tars, drop_last=True), tmp_path)
    epochs = order(tars, 3)
    assert flat(model.seen) == [*epochs[:20], *epochs[22:42], *epochs[44:64]]


def test_shorter_epochs_of_lightning_continue_in_the_stream(tars: Path, tmp_path: Path) -> None:
    model = train(batches(tars), tmp_path, limit_train_batches=3, max_epochs=4)
    epochs = order(tars, 3)
    assert flat(model.seen) == [*epochs[:24], *epochs[22:46]]


def test_a_checkpoint_without_a_position_is_refused(tars: Path, tmp_path: Path) -> None:
    train(batches(tars), tmp_path, max_epochs=1)
    saved = tmp_path / "last.ckpt"
    parts = torch.load(saved, weights_only=False)
    del parts["StreamData"]
    torch.save(parts, saved)
    with pytest.raises(ValueError, match="no position of a stream, because it was saved without StreamData"):
        train(batches(tars), tmp_path)


def test_another_number_of_samples_per_step_is_refused(tars: Path, tmp_path: Path) -> None:
    train(batches(tars), tmp_path, 2)
    with pytest.raises(ValueError, match="saved with 4 samples per step, and now there are 3"):
        train(stream(tars, batch_size=3, collate_fn=collate), tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tars: stream(tars), "pass batch_size= and collate_fn= to the stream"),
        (lambda tars: batches(tars, epochs=None), "one batch ahead of an endless stream"),
        (lambda tars: [1, 2], "must be a stream"),
    ],
    ids=["single samples", "endless", "list"],
)
def test_what_lightning_cannot_resume_is_refused(tars: Path, make: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamData(make(tars))


PROGRAM = """
import sys, lightning
from tests.loader.test_for_lightning import OneWeight, batches
from vlmdata.loader.for_lightning import StreamData
trainer = lightning.Trainer(accelerator="cpu", devices=2, max_epochs=1, logger=False, enable_checkpointing=False)
model = OneWeight(None)
trainer.fit(model, datamodule=StreamData(batches(sys.argv[1])))
open(f"{sys.argv[2]}/{trainer.global_rank}", "w").write(repr(model.seen))
"""


@pytest.mark.slow
def test_ranks_that_lightning_starts_itself_share_an_epoch(tars: Path, tmp_path: Path) -> None:
    """The stream is made before Lightning gives the processes their ranks."""
    (tmp_path / "program.py").write_text(PROGRAM)
    root = Path(__file__).parent.parent.parent
    paths = os.pathsep.join([str(root), str(root / "train")])
    unset = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tars), str(tmp_path)], check=True, env=unset | {"PYTHONPATH": paths}
    )
    seen = [eval((tmp_path / str(rank)).read_text()) for rank in range(2)]
    given = [number for step in zip(*seen, strict=True) for place in zip(*step, strict=True) for number in place]
    assert given == order(tars, 2)[:24]
