"""Every mistake that can be found without work: of a recipe before its run, of a finished dataset afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmdata.arguments import check_bool, check_path
from vlmdata.build import check_recipe
from vlmdata.recipe import Recipe, load
from vlmdata.step import RecipeError


def check(target: str | Path | Recipe, *, overrides: dict[str, Any] | None = None, read_bytes: bool = False) -> list[str]:
    """Find every mistake that a run of a recipe would make, in a second; or verify a finished dataset.

    Of a recipe (a file, a name, or a Recipe, with `overrides` as in `run`) return what is worth knowing before its run, one
    line each; raise RecipeError for its first mistake. It imports the classes that the recipe names, which runs their code.
    Of a dataset (a folder or an address) return what is wrong, one line each: missing or altered files, sums that differ.
    `read_bytes` reads every file and compares its SHA-256. Raises RecipeError for a folder that is no finished dataset.
    """
    check_bool(read_bytes=read_bytes)
    if is_dataset(target):
        if overrides:
            raise RecipeError(f"overrides change a recipe, and {target} is a dataset")
        from vlmdata.audit import audit

        check_path(target=target)
        return audit(str(target), read_bytes=read_bytes)
    recipe = load(target, overrides)
    notes = check_recipe(recipe)
    notes += [note for note in (_crowd(recipe), _names(recipe.source.carries()), recipe.source.warning()) if note]
    return notes


def is_dataset(target: str | Path | Recipe) -> bool:
    """Say whether what is to be checked is a dataset, a folder or an address, and no recipe."""
    return isinstance(target, str | Path) and ("://" in str(target) or (str(target) != "" and Path(target).is_dir()))


def _crowd(recipe: Recipe) -> str | None:
    """Warn if the first rows of a list are so often of one host that its rate limit bounds the run."""
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
    """Say which columns of a source are renamed in a sample's JSON, because vlmdata has a field of that name."""
    from vlmdata.fields import other_names

    others = ", ".join(f"{name} as {other}" for name, other in other_names(columns).items())
    return others and f"columns named like one of vlmdata's fields are renamed in the sample's JSON: {others}"
