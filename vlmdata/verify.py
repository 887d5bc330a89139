"""Checks a recipe before its run, or a finished dataset after it, without building anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmdata.arguments import check_bool, path_of
from vlmdata.errors import Mistakes, RecipeError
from vlmdata.home_folder import at_home
from vlmdata.preflight.examine import examine
from vlmdata.preflight.findings import Findings
from vlmdata.recipe import Recipe, as_read


def check(
    target: str | Path | Recipe,
    *,
    overrides: dict[str, Any] | None = None,
    read_bytes: bool = False,
    out: str | Path | None = None,
    deep: bool = False,
) -> list[str]:
    """Check a recipe for every mistake that would stop its run, or verify a finished dataset.

    A recipe is a file, a name or a Recipe, with `overrides` as in `run`. The check takes about a second. It returns notes to
    read before the run, one line each, and raises RecipeError with a line for each mistake. It imports the classes that the
    recipe names, which runs their code. With `out`, it also checks where the run would write. With `deep`, it also asks for
    weights that are not on this machine, tries to write to `out`, and fetches and measures a sample of rows.

    A dataset is a folder or an address. The check returns the faults, one line each, such as missing or altered files and
    wrong counts. With `read_bytes`, it reads every file and compares its SHA-256. Raises RecipeError if the folder is not a
    finished dataset.
    """
    check_bool(read_bytes=read_bytes, deep=deep)
    target = at_home(target) if isinstance(target, str | Path) else target
    if is_dataset(target):
        if overrides or out is not None or deep:
            given = "overrides" if overrides else "out" if out is not None else "deep"
            verb = "apply" if overrides else "applies"
            raise RecipeError(f"{target} is a dataset, but {given} {verb} only to a recipe. Remove {given}")
        from vlmdata.audit import audit

        return audit(str(target), read_bytes=read_bytes)
    found = find_mistakes(as_read(target, overrides), out=out, deep=deep)
    if found.mistakes:
        raise Mistakes(found.mistakes)
    return [*found.notes, *found.facts] if deep else found.notes


def find_mistakes(
    recipe: Recipe | tuple[dict[str, Any], str], *, out: str | Path | None = None, deep: bool = False
) -> Findings:
    """Return the mistakes in a recipe that would stop its run, notes, and with `deep` what a sample of its rows shows.

    `recipe` is a Recipe, or plain values with the path of their file, as `vlmdata.recipe.read` returns them.
    """
    out = None if out is None else path_of(out=out)
    parsed, found = examine(recipe, out=out, resolves=deep)
    if deep and parsed is not None:
        from vlmdata.preflight.try_rows import try_run

        try_run(parsed, out, found)
    return found.clean()


def is_dataset(target: str | Path | Recipe) -> bool:
    """Return whether the target is a dataset (a folder or an address) and not a recipe."""
    return isinstance(target, str | Path) and ("://" in str(target) or (str(target) != "" and Path(target).is_dir()))
