"""The log of a run: terminal, JSON lines, TensorBoard, and wandb if the recipe names a project."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlmdata.count_line import PIPE_INTERVAL_S
from vlmdata.notes import is_quiet
from vlmdata.redact import redacted
from vlmdata.step import RecipeError
from vlmdata_train.data.plain_text import plain
from vlmdata_train.recipe import Logs


def check_logs(choice: Logs) -> None:
    """Raise RecipeError if the package of a chosen log is not installed."""
    for wanted, package in ((choice.tensorboard, "tensorboard"), (choice.wandb is not None, "wandb")):
        if wanted and importlib.util.find_spec(package) is None:
            raise RecipeError(
                f"logs.{package}: the package {package} is not installed. Install the package, or turn this log off."
            )


class Log:
    """Writes records to the logs and lines to the terminal. Only the first rank's log is active. Other logs do nothing."""

    def __init__(
        self,
        out: Path,
        choice: Logs,
        *,
        active: bool,
        recipe: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.active, self._clock, self._last_line = active, clock, clock()
        self._is_quiet = is_quiet()
        self._board: Any = None
        self._wandb: Any = None
        if not active:
            return
        out.mkdir(parents=True, exist_ok=True)
        self._lines = open(out / "log.jsonl", "a")  # noqa: SIM115  open until `close`
        if choice.tensorboard:
            self._board = _summary_writer(out / "tensorboard")
        if choice.wandb is not None:
            import wandb

            self._wandb = wandb.init(project=choice.wandb, dir=str(out), config=dict(recipe))

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Write one record to every log.

        In TensorBoard and wandb, a value in a nested dict gets a name such as `train/loss_of/captions`.
        """
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
        """Print lines to stderr, because stdout is for results. With `--quiet`, print nothing."""
        if not self._is_quiet:
            self.warn(text)

    def say_if_due(self, text: str) -> None:
        """Print a line if stderr is not a terminal and got no line in the last 30 seconds."""
        if self._clock() - self._last_line >= PIPE_INTERVAL_S and not sys.stderr.isatty():
            self.say(text)

    def warn(self, text: str) -> None:
        """Print lines about data that is left out or may be wrong. Secrets are removed and control characters escaped."""
        self._last_line = self._clock()
        if self.active:
            print("\n".join(map(plain, redacted(text).split("\n"))), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Flush and close every log."""
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
    """Return the values of nested dicts. The name of a value is its path of keys, joined by "/"."""
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        pairs += _flat(value, f"{prefix}{name}/") if isinstance(value, Mapping) else [(prefix + name, value)]
    return pairs
