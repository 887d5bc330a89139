"""Checks a recipe before its run, or a finished dataset after it, without building anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmdata.arguments import check_bool, check_path
from vlmdata.build import check_recipe
from vlmdata.recipe import Recipe, load
from vlmdata.step import RecipeError


def check(target: str | Path | Recipe, *, overrides: dict[str, Any] | None = None, read_bytes: bool = False) -> list[str]:
    """Check a recipe for every mistake that would stop its run, or verify a finished dataset.

    A recipe is a file, a name or a Recipe, with `overrides` as in `run`. The check takes about a second. It returns notes to
    read before the run, one line each, and raises RecipeError for the first mistake. It imports the classes that the recipe
    names, which runs their code.

    A dataset is a folder or an address. The check returns the faults, one line each, such as missing or altered files and
    wrong counts. With `read_bytes`, it reads every file and compares its SHA-256. Raises RecipeError if the folder is not a
    finished dataset.
    """
    check_bool(read_bytes=read_bytes)
    if is_dataset(target):
        if overrides:
            raise RecipeError(f"{target} is a dataset, but overrides apply only to a recipe. Remove the overrides")
        from vlmdata.audit import audit

        check_path(target=target)
        return audit(str(target), read_bytes=read_bytes)
    recipe = load(target, overrides)
    notes = check_recipe(recipe)
    notes += [note for note in (_crowd(recipe), _names(recipe.source.carries()), recipe.source.warning()) if note]
    return notes


def is_dataset(target: str | Path | Recipe) -> bool:
    """Return whether the target is a dataset (a folder or an address) and not a recipe."""
    return isinstance(target, str | Path) and ("://" in str(target) or (str(target) != "" and Path(target).is_dir()))


def _crowd(recipe: Recipe) -> str | None:
    """Return a warning if the rate limit of one host slows the whole run, or None if it does not.

    The host's share of the addresses is estimated from the first rows of the source. Only sources of the type `url_list` are
    checked.
    """
    from vlmdata.row import conform, flatten
    from vlmdata.sources.url_list import UrlList
    from vlmdata.steps.download import Download
    from vlmdata.web.crowded_host import crowd

    web = recipe.first(Download)
    if web is None or not isinstance(recipe.source, UrlList):
        return None
    tables = (table for piece in recipe.source.pieces() for table in recipe.source.read(piece))
    head = next(tables, None)
    return head and crowd(flatten(conform(head), "images").field("url").to_pylist(), None, web)


def _names(columns: Sequence[str]) -> str | None:
    """Return a note that lists the renamed source columns, or an empty string if there are none.

    A source column with the name of a vlmdata field gets another name in a sample's JSON.
    """
    from vlmdata.fields import other_names

    others = ", ".join(f"{name} as {other}" for name, other in other_names(columns).items())
    return others and f"columns that have the name of a vlmdata field are renamed in the sample's JSON: {others}"
