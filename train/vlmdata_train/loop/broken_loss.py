"""Find a loss that breaks, and apply the recipe's rule to it."""

from __future__ import annotations

import math
import statistics
from collections import deque

from vlmdata_train.distributed import Ranks, all_gather_objects
from vlmdata_train.loop.log import Log
from vlmdata_train.loop.train_step import MicroBatch
from vlmdata_train.recipe import Recipe


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
            # At least 2% of the mean: a loss that is nearly constant may move a little.
            if loss > mean + self.deviations * max(deviation, 0.02 * abs(mean)):
                return "spike"
        return None

    def accept(self, loss: float) -> None:
        """Remember a loss whose step was taken: of data that changed its nature only the beginning is a spike."""
        self.refused = 0
        if math.isfinite(loss):
            self.recent.append(loss)


def may_update(
    verdict: str, recipe: Recipe, log: Log, step: int, loss: float, micros: list[MicroBatch], sums: list[float], ranks: Ranks
) -> bool:
    """Apply the recipe's rule to a broken loss: stop (raises), skip the update (False), or only log it (True)."""
    rule = recipe.logs.on_nan if verdict == "nan" else recipe.logs.on_spike
    keys = [key for m in micros for key in m.batch.keys]
    counts = [n for m in micros for n in m.answers]
    means = [(s / max(n, 1), key) for s, n, key in zip(sums, counts, keys, strict=True)]
    worst = _highest([pair for own in all_gather_objects(_highest(means), ranks) for pair in own])  # whichever rank had them
    named = "; ".join(f"{key} ({value:.3f})" for value, key in worst)
    text = f"step {step + 1}: {verdict}, loss {loss:.4f}; rule: {rule}; samples with the highest loss: {named}"
    log.record("broken", step + 1, {"verdict": verdict, "rule": rule, "worst": [key for _, key in worst], "value": str(loss)})
    log.say(text)
    if rule == "stop":
        # Wait until the first rank has logged it: torchrun ends all ranks as soon as one has failed.
        all_gather_objects(None, ranks)
        raise FloatingPointError(text)
    return rule == "tell"


def _highest(means: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the eight samples with the highest loss, first those that have no number."""
    return sorted(means, key=lambda pair: (pair[0] == pair[0], -pair[0]))[:8]
