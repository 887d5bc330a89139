"""Counts and rates of the steps since the last log record, and the line that shows them in the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from vlmdata_train.loop.model_flops import ModelFlops
from vlmdata_train.loop.train_step import MicroBatch
from vlmdata_train.recipe import Recipe


@dataclass
class Meter:
    """Counts of the steps since the last log record. Times are in seconds."""

    started: float = field(default_factory=time.perf_counter)
    steps: int = 0
    waited: float = 0.0  # time in which the steps waited for data
    tokens: int = 0  # without padding
    padded_tokens: int = 0  # with padding
    answers: int = 0  # tokens that have a loss
    samples: int = 0
    images: int = 0
    flops: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)  # summed over answer tokens, per source
    counts: dict[str, int] = field(default_factory=dict)  # answer tokens per source

    def add_losses(self, sums: Mapping[str, tuple[float, int]]) -> None:
        """Add the summed loss and the number of answer tokens of each source."""
        for source, (loss, count) in sums.items():
            self.losses[source] = self.losses.get(source, 0.0) + loss
            self.counts[source] = self.counts.get(source, 0) + count

    def values(self, world: int, peak_flops: float | None) -> dict[str, Any]:
        """Return the values of the log record.

        A rate is this rank's rate times `world`, because all ranks are assumed to be equally fast.
        """
        elapsed = time.perf_counter() - self.started
        total, count = sum(self.losses.values()), sum(self.counts.values())
        values: dict[str, Any] = {
            "loss": total / max(count, 1),
            "loss_of": {s: self.losses[s] / max(self.counts[s], 1) for s in sorted(self.losses)},
            "step_s": round(elapsed / max(self.steps, 1), 4),
            "tokens_per_s": round(self.tokens * world / elapsed, 1),
            "samples_per_s": round(self.samples * world / elapsed, 2),
            "images_per_s": round(self.images * world / elapsed, 2),
            "padding": round(1 - self.tokens / max(self.padded_tokens, 1), 4),
            "data_wait": round(self.waited / elapsed, 4),
            "model_tflops": round(self.flops / elapsed / 1e12, 4),
            "memory_gib": round(memory_bytes() / 2**30, 2),
        }
        if peak_flops:
            values["flops_use"] = round(self.flops / elapsed / peak_flops, 4)
        return values


def memory_bytes() -> int:
    """Return the peak memory of this process: on the GPU if it uses a GPU, otherwise in main memory."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def add_step(meter: Meter, micros: list[MicroBatch], sums: list[float], flops: ModelFlops) -> None:
    """Add one step to the meter. `sums` are the summed losses of the samples."""
    remaining = iter(sums)
    meter.steps += 1
    for micro in micros:
        batch = micro.batch
        meter.tokens += micro.tokens
        meter.padded_tokens += micro.padded_tokens
        meter.samples += len(micro.answers)
        meter.images += len(batch.tile_counts)
        meter.flops += sum(flops.of_parts(micro).values())
        for source, answers in zip(batch.sources, micro.answers, strict=True):
            meter.add_losses({source: (next(remaining), answers)})


def step_line(step: int, recipe: Recipe, values: dict[str, Any]) -> str:
    """Return the line that shows a step in the terminal."""
    total = f"/{recipe.steps}" if recipe.steps else ""
    use = f", {values['flops_use']:.0%} of peak" if "flops_use" in values else ""
    return (
        f"step {step}{total}: loss {values['loss']:.4f}, {values['tokens_per_s']:,.0f} tokens/s, "
        f"{values['samples_per_s']:.1f} samples/s, padding {values['padding']:.1%}, "
        f"waiting {values['data_wait']:.0%}, {values['memory_gib']:.2f} GiB{use}"
    )
