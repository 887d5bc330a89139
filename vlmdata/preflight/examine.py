"""Makes all checks that are possible before a run, for `check` and for `run`."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from vlmdata.errors import RecipeError
from vlmdata.extras import MissingPackage, check_installed
from vlmdata.preflight.column_kinds import wrong_kinds
from vlmdata.preflight.disk_space import check_disk
from vlmdata.preflight.embedding_files import other_models, other_widths
from vlmdata.preflight.findings import Findings, attempt_check
from vlmdata.preflight.first_rows import check_rows, first_rows
from vlmdata.preflight.output_place import check_output
from vlmdata.preflight.source_files import check_files
from vlmdata.preflight.step_order import texts_too_late, too_early
from vlmdata.preflight.weights import MissingWeights, check_weights
from vlmdata.recipe import Parsed, Recipe, parse_parts
from vlmdata.row import ROW, flatten
from vlmdata.sources.url_list import UrlList
from vlmdata.step import Source, Step, file_name
from vlmdata.steps.download import Download
from vlmdata.steps.resize import Resize
from vlmdata.web.crowded_host import crowd

SAMPLED = 5000  # rows by whose hosts the duration of the run is estimated
CONNECT_S = 3.0  # for an answer of a Ray cluster


def examine(
    recipe: Recipe | tuple[dict[str, Any], str],
    *,
    out: str | Path | None = None,
    limit: int | None = None,
    address: str | None = None,
    resolves: bool = False,
) -> tuple[Recipe | None, Findings]:
    """Return the recipe, or None if it has mistakes, and what was found. Raises nothing for a user's mistake.

    `recipe` is a Recipe, or a tree of plain values with its path. Without `resolves`, nothing is requested over the network,
    except for a source that lies there. With `resolves`, also ask for weights that are not on this machine.
    """
    tree, where = ({}, "recipe") if isinstance(recipe, Recipe) else recipe
    if isinstance(recipe, Recipe):
        parsed = Parsed(recipe.source, recipe.steps, recipe.shards, recipe.part_rows, [])
    else:
        parsed = parse_parts(tree, where)
    findings = Findings(list(parsed.mistakes))
    _check_recipe(parsed, where, findings, resolves=resolves and address is None, can_set=bool(tree))
    source = parsed.source
    if out is not None:
        attempt_check(lambda: check_output(out, source, findings, is_deep=False), findings)
    if source is not None and not findings.mistakes:
        attempt_check(lambda: check_disk(out, source, parsed.steps, findings, limit=limit), findings)
    if address is not None:
        attempt_check(lambda: _check_cluster(address), findings)
    if findings.mistakes or source is None:
        return None, findings.clean()
    return Recipe(source, parsed.steps, parsed.shards, parsed.part_rows), findings.clean()


def _check_recipe(parsed: Parsed, where: str, findings: Findings, *, resolves: bool, can_set: bool) -> None:
    source, steps = parsed.source, parsed.steps
    sound: list[Step] = []
    for step in steps:
        before = len(findings.mistakes)
        can_go = can_set and not isinstance(step, Download | Resize) and not _is_read(step, steps)
        attempt_check(_step_check(step, findings, resolves=resolves, can_go=can_go), findings)
        if len(findings.mistakes) == before:
            attempt_check(partial(step.check_steps, tuple(sound)), findings)
            sound.append(step)
    findings.mistakes += [*wrong_kinds(sound), *other_models(sound), *other_widths(sound), *texts_too_late(sound)]
    if source is None:
        return
    attempt_check(lambda: _check_layout(parsed, source, findings), findings)
    if any(isinstance(step, Download) and step.verify for step in steps) and not source.states_hashes:
        findings.mistakes.append(
            "download: `verify` needs hashes from the source. Name the column that holds them, as in `hash: sha256` of url_list"
        )
    before = len(findings.mistakes)
    attempt_check(lambda: check_installed(source.packages, f"source {file_name(source)}"), findings)
    if len(findings.mistakes) == before:
        attempt_check(lambda: check_files(source, findings), findings)
    if len(findings.mistakes) == before:
        attempt_check(source.check, findings)
    rows: list[pa.Table | None] = [None]
    if len(findings.mistakes) == before:
        attempt_check(lambda: rows.append(first_rows(source)), findings)
    if not parsed.mistakes:
        findings.mistakes += too_early(source, steps, rows[-1], where)
    if len(findings.mistakes) == before:
        attempt_check(lambda: _check_first(rows[-1], source, steps, findings), findings)


def _check_first(rows: pa.Table | None, source: Source, steps: tuple[Step, ...], findings: Findings) -> None:
    if rows is not None:
        check_rows(rows, source, steps, findings)
    web = next((step for step in steps if isinstance(step, Download)), None)
    if web is not None and isinstance(source, UrlList) and rows is not None:
        findings.advise(crowd(flatten(rows.slice(0, SAMPLED), "images").field("url").to_pylist(), None, web) or "")
    findings.advise(_renamed(source.carries()))
    findings.notes.append(source.warning() or "")
    findings.notes = [note for note in findings.notes if note]


def _step_check(step: Step, findings: Findings, *, resolves: bool, can_go: bool) -> Any:
    """Return the checks of a step. `can_go` is true if the recipe still works without the step."""

    def check() -> None:
        try:
            check_installed(step.packages_needed(), f"step {step.name}")
            step.check()
            check_weights(step, findings, resolves=resolves)
        except (MissingPackage, MissingWeights) as error:
            raise RecipeError(f"{error}, or leave the step out: --set {step.name}=off") if can_go else error from None

    return check


def _is_read(step: Step, steps: tuple[Step, ...]) -> bool:
    """Return whether another step reads a column that only this step measures."""
    own = {*(step.column(name) for name in step.columns_written()), *step.columns_decided()} - set(ROW.names)
    return any(not own.isdisjoint(other.columns_read()) for other in steps if other is not step)


def _check_layout(parsed: Parsed, source: Source, findings: Findings) -> None:
    """Raise RecipeError if no row of the source fits the layout, and note that only some fit, or that none is fetched."""
    if source.by_address and not any(isinstance(step, Download) for step in parsed.steps):
        findings.notes.append("the source gives only addresses of images, so without the step `download` all rows are dropped")
    if parsed.shards.layout == "documents":
        return
    for kind, maker in (
        (source.gives, f"source {file_name(source)}"),
        *((one.gives, f"step {one.name}") for one in parsed.steps),
    ):
        if kind in (None, "pairs"):
            continue
        why = (
            f"the {maker} gives {kind}, but a row of the layout 'captions' holds only one image and one text. "
            "Set shards.layout to documents"
        )
        if kind == "conversations":
            raise RecipeError(why)
        findings.notes.append(f"{why}, or most rows are dropped")


def _renamed(columns: Sequence[str]) -> str:
    """Return a note that lists the renamed source columns, or an empty string if there are none.

    A source column with the name of a vlmdata field gets another name in a sample's JSON.
    """
    from vlmdata.fields import other_names

    others = ", ".join(f"{name} as {other}" for name, other in other_names(columns).items())
    return f"columns that have the name of a vlmdata field are renamed in the sample's JSON: {others}" if others else ""


def _check_cluster(address: str) -> None:
    """Raise RecipeError if nothing listens at the address of a Ray cluster. Ray itself would try for half a minute."""
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if address in ("auto", "local") or (host and port is None and "://" in address):
        return
    if not host or not port:
        raise RecipeError(f"--address {address}: write HOST:PORT, ray://HOST:PORT, or auto")
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        raise RecipeError(f"--address {address}: no Ray cluster answers there: {error.strerror or error}") from None
