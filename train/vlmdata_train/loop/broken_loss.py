"""Detect a NaN or a spike in the loss, and apply the recipe's rule."""

from __future__ import annotations

import math
import statistics
from collections import deque

from vlmdata_train.distributed import Ranks, all_gather_objects
from vlmdata_train.loop.log import Log
from vlmdata_train.loop.train_step import MicroBatch
from vlmdata_train.recipe import Recipe


class SpikeWatch:
    """Compares each loss with the last `window` losses that were passed to `accept`.

    It reports spikes only after 20 losses were accepted. A spike is a loss that exceeds the mean of the accepted losses
    by more than `deviations` standard deviations.
    """

    def __init__(self, deviations: float, window: int = 100) -> None:
        self.deviations = deviations
        self.recent: deque[float] = deque(maxlen=window)
        self.refused = 0  # verdicts since the last accepted loss

    def verdict(self, loss: float) -> str | None:
        """Return "nan", "spike", or None for a normal loss."""
        self.refused += 1
        if not math.isfinite(loss):
            return "nan"
        if len(self.recent) >= 20:
            mean, deviation = statistics.fmean(self.recent), statistics.pstdev(self.recent)
            # The deviation counts as at least 2% of the mean, so that small changes of a nearly constant loss are not spikes.
            if loss > mean + self.deviations * max(deviation, 0.02 * abs(mean)):
                return "spike"
        return None

    def accept(self, loss: float) -> None:
        """Remember the loss of a step that updates the weights, for comparison with later losses.

        If new data raises the loss permanently, the mean of the accepted losses rises too, and later losses are not spikes.
        """
        self.refused = 0
        if math.isfinite(loss):
            self.recent.append(loss)


def may_update(
    verdict: str, recipe: Recipe, log: Log, step: int, loss: float, micros: list[MicroBatch], sums: list[float], ranks: Ranks
) -> bool:
    """Log a loss that is NaN or a spike, and return whether to update the weights with it.

    Return True if the recipe's rule is "tell", and False if it is "skip". If the rule is "stop", raise FloatingPointError.
    `sums` are the summed losses of this rank's samples.
    """
    rule = recipe.logs.on_nan if verdict == "nan" else recipe.logs.on_spike
    keys = [key for m in micros for key in m.batch.keys]
    counts = [n for m in micros for n in m.answers]
    means = [(s / max(n, 1), key) for s, n, key in zip(sums, counts, keys, strict=True)]
    worst = _highest([pair for own in all_gather_objects(_highest(means), ranks) for pair in own])
    named = "; ".join(f"{key} ({value:.3f})" for value, key in worst)
    found = f"step {step + 1}: the loss {loss:.4f} is broken ({verdict}), and the recipe's rule is '{rule}'."
    text = f"{found} Samples with the highest loss: {named}"
    log.record("broken", step + 1, {"verdict": verdict, "rule": rule, "worst": [key for _, key in worst], "value": str(loss)})
    log.warn(text)
    if rule == "stop":
        # Wait until the first rank has logged it: torchrun ends all ranks as soon as one fails.
        all_gather_objects(None, ranks)
        raise FloatingPointError(text)
    return rule == "tell"


def _highest(means: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the eight samples with the highest loss, NaN first."""
    return sorted(means, key=lambda pair: (pair[0] == pair[0], -pair[0]))[:8]
