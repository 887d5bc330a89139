"""Retries fetches that failed for a temporary reason, such as a time-out, a busy host or a server that was down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmdata.arguments import check_path, texts_of
from vlmdata.build import run
from vlmdata.dataset import read_manifest, settle
from vlmdata.engine.store.open_store import open_store
from vlmdata.recipe import Recipe, load, parse
from vlmdata.redact import MARK
from vlmdata.step import RecipeError
from vlmdata.web.outcomes import is_passing


def retry(
    out: str | Path,
    *,
    only: str | Sequence[str] = (),
    recipe: str | Path | Recipe | None = None,
    overrides: dict[str, Any] | None = None,
    address: str | None = None,
    local: bool = False,
    workers: int | None = None,
) -> dict[str, Any]:
    """Retry the fetches that failed temporarily, and return the manifest. Without such fetches, nothing is changed.

    `only` names the reasons to retry, such as `timeout` or `http_503` (default: every temporary reason). `recipe` and
    `overrides` must be the recipe and the overrides that built the dataset. They are needed only if addresses in the recipe
    hold secrets, because the manifest does not keep secrets. `address`, `local` and `workers` are as in `run`. Raises
    RecipeError if no row failed with a reason in `only`, or if `out` is not a finished dataset.
    """
    before, reasons = reasons_to_retry(out, only)
    if not reasons:
        return before
    if recipe is None:
        if overrides:
            raise RecipeError("overrides need a recipe. Add the recipe file that built the dataset: --recipe FILE")
        if MARK in json.dumps(before["recipe"]):
            raise RecipeError(
                f"{out} does not store the secrets of its recipe. Add the recipe file that built the dataset: --recipe FILE"
            )
    built = parse(before["recipe"]) if recipe is None else load(recipe, overrides)
    return run(built, out, retry=reasons, address=address, local=local, workers=workers)


def reasons_to_retry(out: str | Path, only: str | Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Return a dataset's manifest and the reasons to retry: `only`, or every temporary reason that occurs in the dataset.

    Finishes an interrupted takedown first. Raises RecipeError if no row failed with a reason in `only`.
    """
    check_path(out=out)
    wanted = texts_of(only=only)
    settle(open_store(out, probe=False))
    manifest = read_manifest(out)
    found = sorted({line["reason"] for line in manifest["dropped"] if line["step"] == "download"})
    if unknown := set(wanted) - set(found):
        others = ", ".join(found) or "none"
        raise RecipeError(f"no row of {out} failed with {', '.join(sorted(unknown))}. The reasons that occur are: {others}")
    return manifest, wanted or [reason for reason in found if is_passing(reason)]
