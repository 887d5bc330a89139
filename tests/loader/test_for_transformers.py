"""A Trainer of transformers reads a stream, and resumes at the very batch, in one process with a model of one weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from tests.loader.tars import caption_set, flat, keys_of
from vlmdata import stream
from vlmdata.loader.for_transformers import SkippingLoader, TrainsOnStream
from vlmdata.loader.map_style import Rows
from vlmdata.loader.stream import ReadOptions

pytestmark = pytest.mark.whole
NUMBERS: dict[str, int] = {f"{shard}-{number}": 100 * shard + number for shard in range(3) for number in range(30)}


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return caption_set(tmp_path_factory.mktemp("tars"), [13, 1, 8])  # 22 samples


class OneWeight(nn.Module):
    """Records what it trains on, in `seen`. Its loss depends on the samples and on the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen: list[list[int]] = []

    def forward(self, numbers: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append(numbers.tolist())
        return {"loss": ((self.weight - numbers / 100) ** 2).mean()}


def collate(samples: list[dict]) -> dict[str, torch.Tensor]:
    numbers = torch.tensor([NUMBERS[sample["__key__"]] for sample in samples])
    return {"numbers": numbers, "labels": numbers}


class StreamTrainer(TrainsOnStream, Trainer):
    pass


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        control.should_training_stop = state.global_step == self.step


def train(samples: Any, run: Path, stop: int | None = None, resume: str | None = None, **options: Any) -> StreamTrainer:
    """Return a trainer that has trained to its end or to step `stop`, with a checkpoint after each step."""
    settings = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "save_steps": 1, "logging_steps": 1, **options}
    arguments = TrainingArguments(str(run), use_cpu=True, report_to="none", disable_tqdm=True, **settings)
    callbacks = [] if stop is None else [StopAt(stop)]
    trainer = StreamTrainer(OneWeight(), arguments, data_collator=collate, train_dataset=samples, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=None if resume is None else str(run / resume))
    return trainer


def losses(trainer: Trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def order(tars: Path, epochs: int) -> list[int]:
    return [NUMBERS[key] for key in keys_of(stream(tars, epochs=epochs, torch=False))]


@pytest.mark.parametrize(("stop", "accumulated"), [(2, 1), (6, 1), (8, 1), (1, 4), (2, 4), (3, 4), (4, 3)])
def test_a_trainer_resumes_at_the_batch_and_with_the_losses(tars: Path, tmp_path: Path, stop: int, accumulated: int) -> None:
    options = {"gradient_accumulation_steps": accumulated}
    whole = train(stream(tars), tmp_path / "whole", **options)
    first = train(stream(tars), tmp_path / "run", stop, **options)
    then = train(stream(tars), tmp_path / "run", None, f"checkpoint-{stop}", **options)
    epochs = order(tars, 3)
    wanted = [*epochs[:22], *epochs[22:24], *epochs[22:44], *epochs[44:46]]
    assert flat(whole.model.seen) == flat(first.model.seen + then.model.seen) == wanted
    assert losses(then) == losses(whole) and torch.equal(then.model.weight, whole.model.weight)
    assert then.state.epoch == whole.state.epoch == 2 and then.state.global_step == whole.state.global_step


def test_a_trainer_may_restore_its_callbacks_too(tars: Path, tmp_path: Path) -> None:
    first = train(stream(tars), tmp_path, 2)
    then = train(stream(tars), tmp_path, None, "checkpoint-2", restore_callback_states_from_checkpoint=True)
    assert flat(first.model.seen + then.model.seen)[:22] == order(tars, 1)


def test_every_training_without_a_checkpoint_starts_where_the_stream_is(tars: Path, tmp_path: Path) -> None:
    samples = stream(tars)
    again = [train(samples, tmp_path / str(number), num_train_epochs=1).model.seen for number in range(2)]
    assert again[0] == again[1] and samples.position == 0


def test_an_endless_stream_resumes_with_other_batches(tars: Path, tmp_path: Path) -> None:
    first = train(stream(tars, epochs=None), tmp_path, 3, max_steps=9)
    then = train(stream(tars, epochs=None), tmp_path, None, "checkpoint-3", max_steps=9, per_device_train_batch_size=5)
    assert flat(first.model.seen + then.model.seen) == order(tars, 2)[: 3 * 4 + 6 * 5]


def test_drop_last_leaves_out_the_end_of_each_epoch(tars: Path, tmp_path: Path) -> None:
    trainer = train(stream(tars), tmp_path, dataloader_drop_last=True)
    epochs = order(tars, 2)
    assert flat(trainer.model.seen) == epochs[:20] + epochs[22:42]


def test_rows_are_a_dataset_for_evaluation(tars: Path, tmp_path: Path) -> None:
    arguments = TrainingArguments(
        str(tmp_path),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        per_device_eval_batch_size=5,
    )
    rows: Any = Rows(tars, cache=tmp_path)
    trainer = StreamTrainer(OneWeight(), arguments, data_collator=collate, train_dataset=stream(tars), eval_dataset=rows)
    assert trainer.evaluate()["eval_loss"] > 0
    assert sorted(flat(trainer.model.seen)) == sorted(order(tars, 1))


def test_another_number_of_samples_per_update_is_refused(tars: Path, tmp_path: Path) -> None:
    train(stream(tars), tmp_path, 2)
    with pytest.raises(ValueError, match="saved with 4 samples per update, and now there are 2"):
        train(stream(tars), tmp_path, None, "checkpoint-2", per_device_train_batch_size=2)
    same = train(stream(tars), tmp_path, None, "checkpoint-2", per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert flat(same.model.seen)[:14] == order(tars, 1)[8:]


def test_a_checkpoint_of_other_data_or_without_a_position_is_refused(tars: Path, tmp_path: Path) -> None:
    train(stream(tars), tmp_path / "run", 2)
    other = caption_set(tmp_path / "tars", [13, 1, 9])
    with pytest.raises(ValueError, match="another index"):
        train(stream(other), tmp_path / "run", None, "checkpoint-2")
    saved = tmp_path / "run" / "checkpoint-2" / "trainer_state.json"
    saved.write_text(saved.read_text().replace("StreamPosition", "OtherCallback"))
    with pytest.raises(ValueError, match="no position of a stream"):
        train(stream(tars), tmp_path / "run", None, "checkpoint-2")


def test_a_dataset_that_is_not_a_stream_of_samples_is_refused(tars: Path, tmp_path: Path) -> None:
    for wrong, message in (([], "a stream"), (stream(tars, batch_size=2), "this trainer makes the batches")):
        with pytest.raises(ValueError, match=message):
            train(wrong, tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_batches_are_not_read(tars: Path, tmp_path: Path, workers: int) -> None:
    from accelerate import skip_first_batches

    samples = stream(tars, batch_size=4, reading=ReadOptions(cache=tmp_path))
    loader = SkippingLoader(samples.loader(workers))
    state = {"position": 8, **{name: samples.state_dict()[name] for name in ("index", "order")}, "done": 2}
    loader.load_state_dict(state)
    assert len(loader) == 6
    loader.skips = 2
    given = list(skip_first_batches(loader, 2))
    assert [NUMBERS[key] for key in keys_of(given)][:14] == order(tars, 1)[8:] and len(given) == 4
    assert loader.state_dict()["position"] == 22 and loader.state_dict()["done"] == 0 and samples.epoch == 1
