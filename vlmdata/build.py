"""Build a dataset from a recipe, or resume an interrupted build: the function behind `vlmdata run`."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import spawn
from pathlib import Path
from typing import Any

from vlmdata import recipe as recipes
from vlmdata.arguments import check_bool, check_text, check_whole_or_none, path_of, texts_of
from vlmdata.dataset import finish_pending, settle
from vlmdata.dataset_pages import write_pages
from vlmdata.engine.drive import decide
from vlmdata.engine.drive.driver import Driver, Workplace
from vlmdata.engine.drive.gpus import visible_gpus, wants_gpu
from vlmdata.engine.drive.progress import Progress
from vlmdata.engine.drive.publish import pack_and_publish
from vlmdata.engine.drive.workers import Workers
from vlmdata.engine.output.manifest import alone, confirm_alone, load_manifest, write_manifest
from vlmdata.engine.output.run_log import RunLog
from vlmdata.engine.partitions import plan, tombstones
from vlmdata.engine.partitions.calls import PartitionCall, RunJob
from vlmdata.engine.partitions.plan import PartitionPlan
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.store_protocol import Store
from vlmdata.engine.work.compile_recipe import BoundStep, compile_recipe, pass_ends
from vlmdata.errors import Mistakes
from vlmdata.extras import check_installed, is_installed
from vlmdata.notes import is_quiet, note
from vlmdata.preflight.examine import examine
from vlmdata.recipe import Recipe
from vlmdata.step import RecipeError
from vlmdata.steps.download import Download

OPEN_PARTITIONS = 4  # partitions that a worker fetches at a time, so that a slow host delays only one of them
OPEN_ON_GPU = 2  # the same for a worker with a GPU, so that the GPU has work while the other partition is read or committed

WITHOUT_RAY = "Ray is not installed (pip install 'vlmdata[ray]'), so the run uses plain processes, as with --local"


def run(
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    overrides: dict[str, Any] | None = None,
    address: str | None = None,
    local: bool = False,
    workers: int | None = None,
    limit: int | None = None,
    retry: str | Sequence[str] = (),
    open_workers: Callable[[RunJob, int], contextlib.AbstractContextManager[Workers]] | None = None,
) -> dict[str, Any]:
    """Build the dataset in `out` and return its manifest. Work that an earlier run finished is not repeated.

    `recipe` is a file, the name of a shipped recipe, or a Recipe. `overrides` maps dotted paths, such as `source.path`, to
    values that replace values of the recipe; the name of a step with the value False leaves the step out. A Recipe takes no
    overrides. `workers` is the number of processes (default: one per core). By default, they run on a Ray cluster that is
    started on this machine. With `address`, they run on the Ray cluster at this address, and with `local`, or if Ray is not
    installed, they run without Ray. With `limit`, only this number of rows is processed: the first rows of the first
    partitions. Fetches and answers of models that failed for a reason in `retry`, such as `timeout`, are tried again.
    `open_workers` takes the place of `address` and `local`. It is a function that gets the job and the number of workers, and
    returns a context manager that yields the workers. Raises RecipeError or InputError for a user's mistake before any work
    starts, and WorkFailed if the work fails.
    """
    _check_not_importing()
    check_whole_or_none(1, workers=workers)
    check_whole_or_none(0, limit=limit)
    check_bool(local=local)
    out = path_of(out=out)
    if address is not None:
        check_text(address=address)
        check_installed(["ray"], f"--address {address}")
    without_ray = not (local or address or open_workers or is_installed("ray"))
    reasons = tuple(texts_of(retry=retry))
    recipe = _examined(recipes.as_read(recipe, overrides), out, limit, address)
    store = open_store(out)
    settle(store)
    if not reasons and plan.load(store) and is_done(store, recipe, plan.make(recipe, store), limit):
        return load_manifest(store)
    if without_ray:
        note(WITHOUT_RAY)
    with alone(store):
        finish_pending(store)
        if plan.load(store) is None:
            tombstones.adopt(store, recipe.source)
        made = plan.make(recipe, store)
        if not reasons and is_done(store, recipe, made, limit):  # another process built the dataset before it released the lock
            return load_manifest(store)
        count = max(1, min(workers or os.cpu_count() or 1, made.parts))
        log = RunLog(store, recipe.describe(), limit=limit, again=reasons, workers=count, address=address)
        with log:  # adds an exception to the log
            opened = open_workers or functools.partial(_workers, address=address, local=local or without_ray)
            workers_of = functools.partial(opened, RunJob(recipe, str(store.url), log.run), count)
            manifest = _build(recipe, store, made, log, workers_of, limit, reasons)
        log.add("end", rows=manifest["rows"], kept=manifest["kept"])
        return manifest


def _check_not_importing() -> None:
    """Raise RecipeError in a worker that is importing the user's script, where `run` would wait for its own caller."""
    try:
        spawn.get_preparation_data("")
    except RuntimeError:
        raise RecipeError(
            "the script that calls run() defines a step, so each worker imports the script and calls run() again. "
            "Put the call below `if __name__ == '__main__':`"
        ) from None


def _examined(read: Recipe | tuple[dict[str, Any], str], out: str | Path, limit: int | None, address: str | None) -> Recipe:
    """Make the checks of `vlmdata check`, and print its notes. Raises RecipeError if there is a mistake.

    With --quiet, only the notes about lost rows and the disk are printed.
    """
    recipe, found = examine(read, out=out, limit=limit, address=address, resolves=True)
    if recipe is None:
        raise Mistakes(found.mistakes)
    for line in found.notes:
        if not (is_quiet() and line in found.advice):
            print(f"vlmdata: {line}", file=sys.stderr)
    return recipe


def _build(
    recipe: Recipe,
    store: Store,
    made: PartitionPlan,
    log: RunLog,
    workers_of: Callable[[], contextlib.AbstractContextManager[Workers]],
    limit: int | None,
    retry: tuple[str, ...],
) -> dict[str, Any]:
    rows = made.rows if limit is None else min(limit, made.rows or limit)
    folder = store.path("work") if isinstance(store, LocalStore) else None
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(rows, log, folder, steps=recipe.steps))
        driver = Driver(stack.enter_context(workers_of()), OPEN_PARTITIONS, folder)
        calls, counts = _passes(compile_recipe(recipe), made, store, driver, progress, limit, retry)
        progress.stage("pack")
        manifest = pack_and_publish(store, recipe, made, driver, calls, counts, limit)
        manifest["files"] |= write_pages(store, manifest)
        confirm_alone(store)
        write_manifest(store, manifest)
        log.add("workers", died=driver.deaths)
        return manifest


def is_done(store: Store, recipe: Recipe, made: PartitionPlan, limit: int | None) -> bool:
    """Return whether `store` already holds exactly the dataset that the recipe builds with this plan and limit."""
    try:
        manifest = load_manifest(store)
    except FileNotFoundError:
        return False
    same_rows = manifest["limit"] == limit or manifest["rows"] == made.rows
    return same_rows and recipe.is_described_by(manifest["recipe"]) and manifest["source"] == made.source


def _passes(
    bound_steps: list[BoundStep],
    made: PartitionPlan,
    store: Store,
    driver: Driver,
    progress: Progress,
    limit: int | None,
    retry: tuple[str, ...],
) -> tuple[list[PartitionCall], list[dict[str, Any]]]:
    """Run the recipe pass by pass on all partitions.

    Return two lists with one entry per partition: the partition's call in the last pass, and the counts that the call returned.
    """
    takes = _takes(made, driver, limit)
    decided: tuple[str, ...] = ()
    total = made.rows or 0
    if not made.is_list:
        progress.stage("read")
        read = _advance(driver, [PartitionCall(partition, take, 0, ()) for partition, take in takes], (), progress, "rows")
        total = sum(count["rows"] for count in read)
        keys = driver.map(
            "project", [(PartitionCall(partition, take, 0, ()), {"key": ()}) for partition, take in takes], together=1
        )
        decided = (decide.number_repeats([table for _, table in sorted(keys, key=_partition)], store),)
    ends = [*pass_ends(bound_steps), len(bound_steps)]
    done = 0
    while done < len(bound_steps):
        bound = bound_steps[done]
        if bound.step.sees_all:
            progress.stage(bound.step.name)
            inputs = [PartitionCall(partition, take, done, decided) for partition, take in takes]
            decided += (decide.decide_globally(bound.step, done, inputs, total, driver, store),)
            done += 1
            continue
        end = next(number for number in ends if number > done)
        working = [one for one in bound_steps[done:end] if one.kind != "free"]
        if working:
            progress.stage(" + ".join(one.step.name for one in working))
            _advance(
                driver,
                [PartitionCall(partition, take, end, decided) for partition, take in takes],
                retry,
                progress,
                working[0].kind,
            )
        done = end
    calls = [PartitionCall(partition, take, len(bound_steps), decided) for partition, take in takes]
    progress.stage("count")
    return calls, _advance(driver, calls, (), progress, "free")


def _partition(result: tuple[Any, Any]) -> int:
    return result[0][0].partition


def _advance(driver: Driver, calls: list[PartitionCall], retry: tuple[str, ...], progress: Progress, kind: str) -> list[Any]:
    on_gpus = kind == "model" and driver.workers.gpus
    together = OPEN_PARTITIONS if kind in ("ingest", "ask") else OPEN_ON_GPU if on_gpus else 1
    on: Workplace = "models" if kind == "model" else "one" if kind == "ask" else "all"  # one: it counts requests and tokens
    results = {}
    todo = ((call, retry) for call in calls)
    for args, counts in driver.map("advance", todo, together=together, tracked=True, on=on):
        results[args[0].partition] = counts
        progress.add(counts)
    return [results[call.partition] for call in calls]


def _takes(made: PartitionPlan, driver: Driver, limit: int | None) -> list[tuple[int, int | None]]:
    """Return the partitions to process as (partition, number of rows to take). The numbers add up to at most `limit`.

    Without a limit, each number is None, which means all rows. The first partition is always included, because the dataset
    takes its columns from this partition.
    """
    if limit is None:
        return [(partition, None) for partition in range(max(1, made.parts))]
    takes: list[tuple[int, int | None]] = []
    left = limit
    for partition in range(max(1, made.parts)):
        if left <= 0 and takes:
            break
        rows = made.part_rows
        if not made.is_list:  # an archive: the rows of a partition are counted by reading it
            rows = next(driver.map("advance", [(PartitionCall(partition, None, 0, ()), ())]))[1]["rows"]
        takes.append((partition, min(left, rows)))
        left -= rows
    return takes


@contextlib.contextmanager
def _workers(job: RunJob, count: int, address: str | None, local: bool) -> Iterator[Workers]:
    web = job.recipe.first(Download)
    pool: Workers
    if local:
        from vlmdata.engine.drive.processes import LocalWorkers

        pool = LocalWorkers(job, count, web, visible_gpus() if wants_gpu(job.recipe) else ())
        try:
            yield pool
        finally:
            pool.close()
        return
    from vlmdata.engine.drive import on_ray

    with on_ray.cluster(address, count) as total:
        if address:
            on_ray.check_versions()
        on_ray.every_node_reads(job.out)
        gpus = on_ray.gpus() if wants_gpu(job.recipe) else 0
        pool = on_ray.RayWorkers(job, total if address else count, web, together=OPEN_PARTITIONS, gpus=gpus)
        try:
            yield pool
        finally:
            pool.close()
