"""Tries a run on a sample, for `check --deep`: asks for weights, writes to the output, and fetches and measures a few rows."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from vlmdata.engine.partitions.tombstones import Tombstones
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.engine.work.compile_recipe import BoundStep, compile_recipe
from vlmdata.engine.work.ingest import Ingest
from vlmdata.engine.work.open_partition import Keep
from vlmdata.engine.work.read_source import with_keys, without_data
from vlmdata.errors import RecipeError
from vlmdata.generation.asking_step import AskingStep
from vlmdata.generation.captioning_step import CaptioningStep
from vlmdata.preflight.disk_space import check_disk, count_rows
from vlmdata.preflight.findings import Findings, attempt_check
from vlmdata.preflight.output_place import check_output
from vlmdata.preflight.try_answers import FewAnswers, try_answers
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.process.thread import Thread
from vlmdata.recipe import Recipe
from vlmdata.row import alive, conform, flatten
from vlmdata.step import Step
from vlmdata.steps.download import Download
from vlmdata.untrusted import errors_as, one_line
from vlmdata.web.rate_limiter import RateLimiter

ROWS = 32  # rows in the sample
SEARCHED = 1000  # first rows of the source among which the sample is chosen
FETCH_S = 10.0  # seconds for each image of the sample, without a second attempt
READ_S = 20.0  # seconds after which no further row is read, and no further step is begun
CLOSE_S = 5.0  # seconds for closing a generator that is still waiting for an answer
SHOWN = 3  # reasons that are named


def try_run(recipe: Recipe, out: str | Path | None, findings: Findings) -> None:
    """Add what a sample of at most 32 rows shows, and the mistakes that only a request over the network can find.

    At most a minute passes: an image is given 10 seconds, all are fetched at the same time within the rate limits of their
    hosts, and no step begins after 20 seconds. Steps that load a model or that must see all rows are left out. A step that asks
    an endpoint gets up to a minute more, and asks for at most 4 answers.
    """
    if out is not None:
        attempt_check(lambda: check_output(out, recipe.source, findings, is_deep=True), findings)
    if not findings.mistakes:
        attempt_check(lambda: _try_rows(recipe, out, findings), findings)


def _try_rows(recipe: Recipe, out: str | Path | None, findings: Findings) -> None:
    start = time.monotonic()
    with errors_as(_unreadable, passes=(RecipeError, OSError)):
        rows, total = _sample(recipe)
    if not len(rows):
        findings.notes.append("source: the first pieces have no row to try")
        return
    with tempfile.TemporaryDirectory(prefix="vlmdata-check-", ignore_cleanup_errors=True) as folder:  # a late answer may come
        keep = Keep()
        opened = None
        try:
            download = recipe.first(Download)
            limiter = RateLimiter(download) if download else None
            opened = FewAnswers(LocalStore(Path(folder)), 0, keep, threading.Lock(), limiter, Tombstones())
            rows = without_data(rows, opened.blob)
            size = _try_steps(recipe, rows, total, opened, findings, start)
            opened.blob.discard()
        finally:
            _close(keep, is_late=opened is not None and opened.is_late)
    if size:
        findings.facts[:] = [fact for fact in findings.facts if not fact.startswith("estimate")]
        check_disk(out, recipe.source, recipe.steps, findings, image_bytes=size)


def _close(keep: Keep, *, is_late: bool) -> None:
    """Close models and connections. If an answer is late, closing may wait for it, so this takes at most a few seconds."""
    if not is_late:
        keep.close()
        return
    closing = Thread(keep.close)
    closing.start()
    closing.join(CLOSE_S)


def _unreadable(error: Exception) -> Exception:
    if is_short_of_memory(error):
        return error
    return RecipeError(f"source: a sample cannot be read: {type(error).__name__}: {one_line(error)[:300]}")


def _sample(recipe: Recipe) -> tuple[pa.Table, int | None]:
    """Return at most 32 rows, chosen at random among the first thousand, and the number of all rows, or None if unknown."""
    found: list[pa.Table] = []
    start = time.monotonic()
    for table in _tables(recipe):
        found.append(with_keys(conform(table)))
        if sum(map(len, found)) >= SEARCHED:
            break
    if not found:
        return pa.table({}), 0
    rows = pa.concat_tables(found, promote_options="default")
    count = min(len(rows), SEARCHED)
    chosen = np.sort(np.random.default_rng(0).choice(count, min(count, ROWS), replace=False))  # the same in every check
    is_whole = len(rows) < SEARCHED and time.monotonic() - start <= READ_S
    total = len(rows) if is_whole else count_rows(recipe.source) if recipe.source.by_address else None
    return rows.take(pa.array(chosen)).combine_chunks(), total


def _tables(recipe: Recipe) -> Iterator[pa.Table]:
    start = time.monotonic()
    for piece in recipe.source.pieces():
        for table in recipe.source.read(piece):
            yield table.slice(0, SEARCHED)
            if time.monotonic() - start > READ_S:
                return


def _try_steps(
    recipe: Recipe, rows: pa.Table, total: int | None, opened: FewAnswers, findings: Findings, start: float
) -> float | None:
    """Run the steps on the sample and add a line for each. Return the mean size of a stored image in bytes, or None."""
    findings.facts.append(f"sample: {len(rows)} rows")
    _add_loss("source", rows, None, findings)
    writers: list[str] = []  # steps that write texts, which the sample does not get
    for bound in compile_recipe(recipe):
        step = bound.step
        why = _left_out(bound, rows, start)
        if why:
            findings.facts.append(f"  {step.name}: not tried, because {why}")
            continue
        before = alive(rows)
        opened.measuring = str(bound.measure)
        with errors_as(lambda error: _failed(step, error), passes=(RecipeError, OSError)):  # noqa: B023
            if isinstance(step, AskingStep):
                try_answers(step, rows, opened, findings, total)
                if writers:
                    unknown = f"without what {' and '.join(writers)} would write, so a run may take more or less"
                    findings.facts.append(f"  {step.name} was tried on rows {unknown}")
                writers += [step.name] if step.gives or isinstance(step, CaptioningStep) else []
                continue
            rows = _briefly(step).run(rows, opened)
        if not isinstance(step, Ingest) or step.download or step.resize:
            _add_loss(_name(step), rows, before, findings)
    findings.facts.append(f"  kept by the steps that were tried: {alive(rows).sum()} of {len(rows)}")
    sizes = [size for size in flatten(rows, "images").field("size").to_pylist() if size]
    return float(np.mean(sizes)) if sizes else None


def _name(step: Step) -> str:
    both = (step.download, step.resize) if isinstance(step, Ingest) else (step,)
    return " + ".join(one.name for one in both if one is not None)


def _left_out(bound: BoundStep, rows: pa.Table, start: float) -> str | None:
    step = bound.step
    if step.sees_all:
        return "it must see all rows"
    if "model" in step.needed():
        return "it loads a model"
    missing = [
        name
        for name in step.columns_read()
        if name.partition(".")[0] not in rows.column_names and name not in rows.column_names
    ]
    if missing:
        return f"it reads {missing[0]}, which is not known for all rows of the sample"
    return "the time is over" if time.monotonic() - start > READ_S else None


def _briefly(step: Step) -> Step:
    """Return the step. A fetch gets at most 10 seconds and no second attempt."""
    if not isinstance(step, Ingest) or step.download is None:
        return step
    timeout_s = min(step.download.timeout_s, FETCH_S)
    connect_s = min(step.download.connect_timeout_s, timeout_s)
    brief = replace(step.download, retries=0, timeout_s=timeout_s, connect_timeout_s=connect_s, max_wait_s=FETCH_S)
    return Ingest(download=brief, resize=step.resize)


def _failed(step: Step, error: Exception) -> Exception:
    if is_short_of_memory(error):
        return error
    return RecipeError(f"step {step.name} failed on the sample: {type(error).__name__}: {one_line(error)[:300]}")


def _add_loss(name: str, rows: pa.Table, before: np.ndarray | None, findings: Findings) -> None:
    lost = ~alive(rows) & (True if before is None else before)
    if not lost.any() and before is None:
        return
    reasons = Counter(rows.filter(pa.array(lost))["reason"].to_pylist())
    counts = [(reason or "dropped", count) for reason, count in reasons.most_common(SHOWN)]
    if others := reasons.total() - sum(count for _, count in counts):
        counts.append(("others", others))
    named = ", ".join(f"{reason} {count}" for reason, count in counts)
    total = len(rows) if before is None else int(before.sum())
    findings.facts.append(f"  {name}: {total - int(lost.sum())} of {total} kept" + (f" ({named})" if named else ""))
    if lost.sum() == total and total:
        example = rows.filter(pa.array(lost)).slice(0, 1)
        url = next((url for url in flatten(example, "images").field("url").to_pylist() if url), None)
        findings.notes.append(f"{name} drops every row of the sample ({named})" + (f", such as {url}" if url else ""))
