"""What happens when the loss breaks: the recipe's rule, and the samples that are to blame."""

from __future__ import annotations

from vlmdata_train.distributed import Ranks, gathered
from vlmdata_train.log import Log
from vlmdata_train.recipe import Recipe
from vlmdata_train.step import Micro


def goes_on(
    verdict: str, recipe: Recipe, log: Log, step: int, loss: float, micros: list[Micro], sums: list[float], ranks: Ranks
) -> bool:
    """Apply the recipe's rule to a broken loss: stop (raises), skip the update (False), or only tell (True)."""
    rule = recipe.logs.on_nan if verdict == "nan" else recipe.logs.on_spike
    keys = [key for m in micros for key in m.batch.keys]
    counts = [n for m in micros for n in m.answers]
    means = [(s / max(n, 1), key) for s, n, key in zip(sums, counts, keys, strict=True)]
    worst = _highest([pair for own in gathered(_highest(means), ranks) for pair in own])  # whichever rank had them
    named = "; ".join(f"{key} ({value:.3f})" for value, key in worst)
    text = f"step {step + 1}: {verdict}, loss {loss:.4f}; rule: {rule}; samples with the highest loss: {named}"
    log.record("broken", step + 1, {"verdict": verdict, "rule": rule, "worst": [key for _, key in worst], "value": str(loss)})
    log.say(text)
    if rule == "stop":
        gathered(None, ranks)  # waits until the first rank has told: torchrun ends all ranks as soon as one has failed
        raise FloatingPointError(text)
    return rule == "tell"


def _highest(means: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the eight samples with the highest loss, first those that have no number."""
    return sorted(means, key=lambda pair: (pair[0] == pair[0], -pair[0]))[:8]
