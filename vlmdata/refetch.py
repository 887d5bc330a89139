"""Retries fetches and answers of models that failed for a temporary reason, and fetches whose settings have changed since."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmdata.answer_failures import find_answer_failures
from vlmdata.arguments import check_overrides, path_of, texts_of
from vlmdata.build import run
from vlmdata.dataset import read_manifest, settle
from vlmdata.engine.output.manifest import step_entries
from vlmdata.engine.store.open_store import open_store
from vlmdata.fetch_failures import FETCHES, Failures, find_failures
from vlmdata.recipe import Recipe, apply_overrides, load, parse
from vlmdata.redact import MARK
from vlmdata.sizes import noun
from vlmdata.step import RecipeError


@dataclass(frozen=True)
class RetryPlan:
    """What a retry would do: the dataset's manifest, its failed fetches and answers, and the recipe."""

    out: str | Path
    manifest: dict[str, Any]
    failures: Failures
    answers: Failures
    recipe: Recipe | None  # None: the recipe in the manifest, with `tree`
    tree: dict[str, Any]

    @property
    def again(self) -> list[str]:
        """The reasons for which images are fetched and answers are asked for again."""
        return list(self.failures.again | self.answers.again)

    def lines(self) -> list[str]:
        """Return the failures of images, then those of answers, as lines."""
        return [*self.failures.lines(), *self.answers.lines()]

    def built(self) -> Recipe:
        """Return the recipe to run. Raises RecipeError if only its file has it completely."""
        if self.recipe is not None:
            return self.recipe
        if MARK in json.dumps(self.tree):
            raise RecipeError(
                f"{self.out} does not store the secrets of its recipe. "
                "Add the recipe file that built the dataset: --recipe FILE"
            )
        return parse(self.tree, f"the recipe of {self.out}")


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
    """Retry failed fetches and answers of models, and return the manifest. Without any to retry, nothing is changed.

    By default, these are the answers and fetches that failed temporarily, and the fetches that a changed setting may turn into
    a success, such as `private_address` after a change of `download.allowed_hosts`. Settings are compared with those of all
    runs since the last retry for the same reason. The manifest counts the failed answers. `only` names the reasons to retry
    instead, such as `timeout` or `http_503`.

    `recipe` is the recipe that built the dataset (default: the one in the manifest). It is needed only if addresses in the
    recipe hold secrets, because the manifest does not keep secrets. `overrides` changes values of the recipe, such as
    `download.allowed_hosts`. Without `recipe`, a setting of another step is refused, because it changes no fetch: `run` applies
    it. `address`, `local` and `workers` are as in `run`. Raises RecipeError if no row failed with a reason in `only`, or if
    `out` is not a finished dataset.
    """
    plan = plan_retry(out, only, recipe=recipe, overrides=overrides)
    return carry_out(plan, address=address, local=local, workers=workers)


def carry_out(plan: RetryPlan, **options: Any) -> dict[str, Any]:
    """Run what `plan_retry` returned, and return the manifest. `options` are those of `run`."""
    if not plan.again:
        return plan.manifest
    return run(plan.built(), plan.out, retry=plan.again, limit=plan.manifest["limit"], **options)


def plan_retry(
    out: str | Path,
    only: str | Sequence[str] = (),
    *,
    recipe: str | Path | Recipe | None = None,
    overrides: dict[str, Any] | None = None,
) -> RetryPlan:
    """Return what `retry` would do with the same arguments. Finishes an interrupted takedown first, and raises as `retry`."""
    out = path_of(out=out)
    wanted = texts_of(only=only)
    check_overrides(overrides)
    store = open_store(out, probe=False)
    settle(store)
    manifest = read_manifest(out)
    loaded = None if recipe is None else load(recipe, overrides)
    if loaded is not None:
        tree = loaded.describe()
    else:
        tree = copy.deepcopy(manifest["recipe"])
        apply_overrides(tree, overrides, f"the recipe of {out}")
        _check_fetches(out, manifest["recipe"], overrides or {})
        if overrides and MARK not in json.dumps(tree):
            loaded = parse(tree, f"the recipe of {out}")
            tree = loaded.describe()
    failures = find_failures(store, manifest, tree, wanted)
    answers = find_answer_failures(manifest, wanted, failures.again)
    plan = RetryPlan(out, manifest, failures, answers, loaded, tree)
    if unknown := set(wanted) - set(plan.again):
        others = ", ".join(sorted(failures.left | failures.again | answers.left | answers.again)) or "none"
        raise RecipeError(f"no row of {out} failed with {', '.join(sorted(unknown))}. The reasons that occur are: {others}")
    return plan


def _check_fetches(out: str | Path, recipe: dict[str, Any], overrides: dict[str, Any]) -> None:
    """Raise RecipeError if an override is one of a step that fetches nothing. `recipe` is the one in the manifest."""
    others = {label for name, _, label in step_entries(recipe) if name not in FETCHES}
    if wrong := [place for place in overrides if place.partition(".")[0] in others]:
        settings = " ".join(f"--set {place}=..." for place in wrong)
        change, them = (noun(len(wrong), one, more) for one, more in (("changes", "change"), ("it", "them")))
        raise RecipeError(
            f"{', '.join(wrong)} {change} no fetch, and `retry` only fetches again. This applies {them}: "
            f"vlmdata run RECIPE {settings} --out {shlex.quote(str(out))}"
        )
