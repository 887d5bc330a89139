"""Says what a repeated run did: nothing, or which measurements were new; and which failures it did not repeat."""

from __future__ import annotations

import shlex
from typing import Any

from vlmdata.answer_failures import find_answer_failures
from vlmdata.engine.output.manifest import load_manifest
from vlmdata.engine.output.run_log import logged_runs
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.store_protocol import Store
from vlmdata.errors import Unreachable
from vlmdata.fetch_failures import find_failures
from vlmdata.readable import visible
from vlmdata.sizes import counted
from vlmdata.step import RecipeError
from vlmdata.untrusted import errors_as


def earlier_manifest(out: str) -> dict[str, Any] | None:
    """Return the manifest of a dataset that is about to be built again, or None if there is none that can be read.

    Raises RecipeError if the server of its store does not answer.
    """
    try:
        with errors_as(_unreadable, passes=(OSError, RecipeError)):
            return load_manifest(open_store(out, probe=False))
    except Unreachable as error:
        raise RecipeError(error) from None
    except (OSError, RecipeError):
        return None


def _unreadable(error: Exception) -> Exception:
    return RecipeError(error)  # an error of an object store, which the run itself will report


def rerun_lines(store: Store, before: dict[str, Any] | None, manifest: dict[str, Any], out: str) -> list[str]:
    """Return lines that say what a run changed. `before` is the manifest before the run; without one, there are no lines."""
    if before is None:
        return []
    if before == manifest:
        rows, kept = manifest["rows"], manifest["kept"]
        lines = [f"nothing to do: this recipe has built all {counted(rows, 'row')} ({kept:,} kept, {rows - kept:,} dropped)"]
    else:
        lines = [_reused(store)]
    failures = find_failures(store, manifest, manifest["recipe"])
    if failures.again:
        count = sum(number for number, _ in failures.again.values())
        why = "; ".join(f"{visible(reason)} {number:,}: {why}" for reason, (number, why) in failures.again.items())
        lines.append(f"{counted(count, 'image')} failed before, and `run` does not fetch them again ({why})")
    answers = find_answer_failures(manifest)
    if answers.again:
        count = sum(number for number, _ in answers.again.values())
        why = "; ".join(f"{visible(reason)} {number:,}" for reason, (number, _) in answers.again.items())
        lines.append(f"{counted(count, 'answer')} failed temporarily, and a repeated `run` does not ask for them again ({why})")
    if failures.again or answers.again:
        lines.append(f"  this asks again: vlmdata retry {shlex.quote(out)}")
    return lines


def _reused(store: Store) -> str:
    runs = logged_runs(store)
    measured = runs[-1].measured if runs else {}
    if not measured:
        return "reused: all stored fetches and measurements; only the decisions and the tars are new"
    new = ", ".join(f"{visible(step)} {counted(rows, 'row')}" for step, rows in measured.items())
    return f"measured in this run: {new}; everything else was stored before and is reused"
