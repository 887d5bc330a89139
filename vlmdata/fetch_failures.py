"""Decides which failed fetches to try again: temporary ones, and those that changed settings may turn into a success."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.engine.output.ledger import ledger_files
from vlmdata.engine.output.manifest import step_entries
from vlmdata.engine.output.run_log import logged_runs
from vlmdata.engine.store.parquet_files import open_parquet
from vlmdata.engine.store.store_protocol import Store
from vlmdata.readable import visible
from vlmdata.sizes import counted
from vlmdata.web.outcomes import changed_settings, described, is_fetch_failure, is_passing

FETCH = "download"  # the name of the step in recipes
FETCHES = (FETCH, "resize")  # steps whose settings apply to a fetch


class Failures(NamedTuple):
    """The failures of a dataset by reason: how many images or answers of models, and why they are asked for again or not."""

    again: dict[str, tuple[int, str]]
    left: dict[str, tuple[int, str]]
    thing: str = "image"  # what failed

    def lines(self) -> list[str]:
        """Return the failures as lines, the most frequent reason of each kind first."""
        return [*_listed("asks again for", self.again, self.thing), *_listed("does not ask again for", self.left, self.thing)]


def _listed(what: str, reasons: dict[str, tuple[int, str]], thing: str) -> list[str]:
    total = sum(count for count, _ in reasons.values())
    lines = [f"{what} {counted(total, thing)}:"] if reasons else []
    return lines + [f"  {count:>12,}  {visible(reason)}: {why}" for reason, (count, why) in reasons.items()]


def find_failures(store: Store, manifest: dict[str, Any], recipe: dict[str, Any], only: Collection[str] = ()) -> Failures:
    """Return the failed fetches of a dataset. `recipe` is the recipe with which they would be tried again, as plain values.

    With `only`, exactly the failures with these reasons are tried again. Reads two columns of the ledger.
    """
    counts = _counts(store, manifest)
    now = _settings(recipe)
    runs = [(_settings(run.recipe), run.again, run.has_ended) for run in logged_runs(store)]
    again: dict[str, tuple[int, str]] = {}
    left: dict[str, tuple[int, str]] = {}
    for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        meaning, settings = described(reason)
        if only:
            chosen = reason in only
            (again if chosen else left)[reason] = count, "named" if chosen else "not named"
            continue
        changed: dict[str, None] = {}
        for before in [_settings(manifest["recipe"]), *_since_asked(reason, runs)]:
            changed |= dict.fromkeys(changed_settings(reason, before, now))
        if changed:
            again[reason] = count, f"{_named(list(changed))} changed"
        elif is_passing(reason):
            again[reason] = count, f"temporary ({meaning})"
        else:
            until = (
                f"permanent unless {_named([name.lstrip('+-') for name in settings], 'or')} changes"
                if settings
                else "permanent"
            )
            left[reason] = count, f"{until} ({meaning})"
    return Failures(again, left)


def _named(settings: list[str], between: str = "and") -> str:
    names = [f"{FETCH}.{name}" for name in settings]
    return f" {between} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _counts(store: Store, manifest: dict[str, Any]) -> Counter[str]:
    """Return how many images failed for each reason. Images that `download` refused for other reasons are left out."""
    labels = pa.array([label for name, _, label in step_entries(manifest["recipe"]) if name == FETCH], pa.string())
    counts: Counter[str] = Counter()
    for steps, reasons in _verdicts(store, manifest):
        own = reasons.filter(pc.is_in(steps, value_set=labels)).drop_null()
        counts.update({pair["values"]: pair["counts"] for pair in pc.value_counts(own).to_pylist()})
    return Counter({reason: count for reason, count in counts.items() if is_fetch_failure(reason)})


def _verdicts(store: Store, manifest: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    for name in ledger_files(manifest):
        with open_parquet(store, name) as file:
            paths = [file.schema.column(number).path for number in range(len(file.schema))]
            wanted = [path for path in paths if path.startswith("images.") and path.rsplit(".")[-1] in ("drop", "reason")]
            for batch in file.iter_batches(batch_size=20_000, columns=wanted):
                images = batch.column("images").flatten()
                yield pc.struct_field(images, "drop"), pc.struct_field(images, "reason")


def _settings(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of the recipe's first `download`."""
    return next((parameters for name, parameters, _ in step_entries(recipe) if name == FETCH), {})


def _since_asked(reason: str, runs: list[tuple[dict[str, Any], list[str], bool]]) -> list[dict[str, Any]]:
    """Return the settings of the runs that may have fetched what failed with this reason.

    These are the last complete run that asked again for this reason, and all later runs; or all runs.
    """
    found = []
    for settings, again, has_ended in reversed(runs):
        found.append(settings)
        if reason in again and has_ended:
            break
    return found
