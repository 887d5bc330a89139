"""Decides which failed answers of models to ask for again: those that failed temporarily."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from vlmdata.fetch_failures import Failures
from vlmdata.generation.outcomes import is_passing, meaning


def find_answer_failures(manifest: dict[str, Any], only: Collection[str] = (), also: Collection[str] = ()) -> Failures:
    """Return the failed answers of a dataset, as its manifest counts them.

    With `only`, exactly the failures with these reasons are asked for again. `also` are reasons for which images are fetched
    again: a run repeats everything that failed for one of its reasons.
    """
    counts: Counter[str] = Counter()
    for entry in manifest["generations"].values():
        counts.update(entry["failed"])
    again: dict[str, tuple[int, str]] = {}
    left: dict[str, tuple[int, str]] = {}
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        means = f" ({meaning(reason)})" if meaning(reason) else ""
        if only:
            chosen = reason in only
            (again if chosen else left)[reason] = count, "named" if chosen else "not named"
        elif is_passing(reason):
            again[reason] = count, f"temporary{means}"
        elif reason in also:
            again[reason] = count, f"images are fetched again for the same reason{means}"
        else:
            left[reason] = count, f"permanent{means}"
    return Failures(again, left, "answer")
