"""What the run tells: to the terminal, as JSON lines, to TensorBoard, and to wandb where a project is named."""

from __future__ import annotations

import importlib.util
import json
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlmdata.redact import redacted
from vlmdata.step import RecipeError
from vlmdata_train.fusions.cross_attention import CrossLayer
from vlmdata_train.plain import plain
from vlmdata_train.recipe import Logs


def check_logs(choice: Logs) -> None:
    """Raise RecipeError if what is to be logged to is not installed, before the run begins."""
    for wanted, package in ((choice.tensorboard, "tensorboard"), (choice.wandb is not None, "wandb")):
        if wanted and importlib.util.find_spec(package) is None:
            raise RecipeError(f"logs.{package}: the package {package} is not installed; install it, or leave it out")


class Log:
    """Writes records. Only the first rank has one; the others' calls do nothing."""

    def __init__(self, out: Path, choice: Logs, *, active: bool, recipe: Mapping[str, Any]) -> None:
        self.active = active
        self._board: Any = None
        self._wandb: Any = None
        if not active:
            return
        out.mkdir(parents=True, exist_ok=True)
        self._lines = open(out / "log.jsonl", "a")  # noqa: SIM115  open as long as the run
        if choice.tensorboard:
            self._board = _summary_writer(out / "tensorboard")
        if choice.wandb is not None:
            import wandb

            self._wandb = wandb.init(project=choice.wandb, dir=str(out), config=dict(recipe))

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one record everywhere; nested values get names like `loss/captions`."""
        if not self.active:
            return
        self._lines.write(json.dumps({"kind": kind, "step": step, "time": round(time.time(), 3), **values}) + "\n")
        self._lines.flush()
        flat = {f"{kind}/{name}": value for name, value in _flat(values) if isinstance(value, int | float)}
        if self._board is not None:
            for name, value in flat.items():
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(flat, step=step)

    def say(self, text: str) -> None:
        """Write lines to the terminal, that is to stderr: stdout is for results. Strangers' keys and texts are among them."""
        if self.active:
            print("\n".join(map(plain, redacted(text).split("\n"))), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Write out what is still held."""
        if not self.active:
            return
        self._lines.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _summary_writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # needs the extra vlmdata[train]

    return SummaryWriter(str(folder))


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        pairs += _flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else [(prefix + name, value)]
    return pairs


@dataclass
class Meter:
    """Counts of the steps since the last record. Times in seconds."""

    started: float = field(default_factory=time.perf_counter)
    steps: int = 0
    waited: float = 0.0  # for data
    tokens: int = 0  # real ones, without padding
    places: int = 0  # with padding
    answers: int = 0  # tokens that have a loss
    samples: int = 0
    images: int = 0
    flops: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)  # summed over answer tokens, per source
    counts: dict[str, int] = field(default_factory=dict)  # answer tokens per source

    def add_losses(self, sums: Mapping[str, tuple[float, int]]) -> None:
        """Add each source's summed loss and its answer tokens."""
        for source, (loss, count) in sums.items():
            self.losses[source] = self.losses.get(source, 0.0) + loss
            self.counts[source] = self.counts.get(source, 0) + count

    def values(self, world: int, peak_flops: float | None) -> dict[str, Any]:
        """Return the record: rates over all ranks, taking the others to be as fast as this one."""
        elapsed = time.perf_counter() - self.started
        total, count = sum(self.losses.values()), sum(self.counts.values())
        values: dict[str, Any] = {
            "loss": total / max(count, 1),
            "loss_of": {s: self.losses[s] / max(self.counts[s], 1) for s in sorted(self.losses)},
            "step_s": round(elapsed / max(self.steps, 1), 4),
            "tokens_per_s": round(self.tokens * world / elapsed, 1),
            "samples_per_s": round(self.samples * world / elapsed, 2),
            "images_per_s": round(self.images * world / elapsed, 2),
            "padding": round(1 - self.tokens / max(self.places, 1), 4),
            "data_wait": round(self.waited / elapsed, 4),
            "model_tflops": round(self.flops / elapsed / 1e12, 4),
            "memory_gib": round(memory_bytes() / 2**30, 2),
        }
        if peak_flops:
            values["flops_use"] = round(self.flops / elapsed / peak_flops, 4)
        return values


def memory_bytes() -> int:
    """Return the most memory the run has held: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


class SpikeWatch:
    """Judges losses against the last 100 accepted ones, of which it wants 20 before it judges."""

    def __init__(self, deviations: float, window: int = 100) -> None:
        self.deviations = deviations
        self.recent: deque[float] = deque(maxlen=window)
        self.refused = 0  # verdicts since the last accepted loss

    def verdict(self, loss: float) -> str | None:
        """Return None for a loss as expected, else "nan" or "spike"."""
        self.refused += 1
        if not math.isfinite(loss):
            return "nan"
        if len(self.recent) >= 20:
            mean, deviation = statistics.fmean(self.recent), statistics.pstdev(self.recent)
            # At least 2% of the mean: a loss that has become all but constant may move a little.
            if loss > mean + self.deviations * max(deviation, 0.02 * abs(mean)):
                return "spike"
        return None

    def accept(self, loss: float) -> None:
        """Remember a loss whose step was taken: of data that changed its nature only the beginning is a spike."""
        self.refused = 0
        if math.isfinite(loss):
            self.recent.append(loss)


def flops_per_token(parts: Mapping[str, nn.Module], trained: Mapping[str, bool]) -> dict[str, float]:
    """Return each part's model FLOPs for one token that passes it, forward and backward, without recomputation.

    2 per weight forward, 2 for the gradient of what came in (if anything before it, or in its part, is trained), 2 for the
    weight's own gradient, if it is trained itself. So a language model costs 6 N a token when trained, 4 N when only the
    projector is, and 4 N and 6 for each weight of the updates with LoRA (Kaplan et al. 2020 count so; attention's own
    products are left out, and a table of embeddings counts like any weight).

    `setup.count` says what passes a part. Keys and values of cross-attention are made of image features and not of text: they
    have an entry of their own, `fusion_features`, where there are any.
    """
    learns = {
        name: trained.get(name, False) and any(p.requires_grad for p in part.parameters()) for name, part in parts.items()
    }
    layers = [layer for layer in parts["fusion"].modules() if isinstance(layer, CrossLayer)]
    of_features = {id(p) for layer in layers for p in layer.feature_weights()}
    costs = {}
    for name, through in UP_TO.items():
        part = name.removesuffix("_features")
        weights = [p for p in parts[part].parameters() if (id(p) in of_features) == (name != part)]
        if name in parts or weights:
            costs[name] = _flops(weights, any(learns[other] for other in through), learns[part])
    return costs


# The parts before the end of each one. The fusion's layers stand among those of the language model, so that a gradient on its
# way to a trained language model passes them.
UP_TO = {
    "encoder": ("encoder",), "abstractor": ("encoder", "abstractor"), "fusion_features": ("encoder", "abstractor", "fusion"),
    "fusion": ("encoder", "abstractor", "fusion", "language"), "language": ("encoder", "abstractor", "fusion", "language"),
}  # fmt: skip


def _flops(weights: list[nn.Parameter], passes_back: bool, learns: bool) -> float:
    """Return the FLOPs that weights cost a token."""
    return sum(p.numel() * (2.0 + 2.0 * passes_back + 2.0 * (learns and p.requires_grad)) for p in weights)


def matrix_peak(device: torch.device) -> float | None:
    """Measure the FLOP/s of a bare bf16 matrix product of 8192: what this GPU can give. None on a CPU."""
    if device.type != "cuda":
        return None
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize(device)
    return 20 * 2 * 8192**3 / (time.perf_counter() - start)
