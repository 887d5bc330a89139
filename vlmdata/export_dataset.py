"""Exports a finished dataset to another format, such as Parquet with image columns. `exports/` holds the formats."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlmdata import catalog, exports
from vlmdata.arguments import check_callable, check_choice, path_of, wrong
from vlmdata.card import CARD, export_card, member_names
from vlmdata.count_line import CountLine
from vlmdata.dataset import read_manifest
from vlmdata.engine.output.samples_index import open_index
from vlmdata.engine.output.stored_samples import reported, shards
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.store_protocol import Store
from vlmdata.exporting.draft import LEFT_OUT, Draft, ShardRecord, check_target, open_draft
from vlmdata.exporting.exporter import Exporter, Kind, Shard, first_kind
from vlmdata.exporting.target import check_name, check_place
from vlmdata.extras import check_installed
from vlmdata.recipe import fingerprint
from vlmdata.sizes import counted, noun
from vlmdata.step import RecipeError
from vlmdata.untrusted import one_line
from vlmdata.version import version


def export(
    out: str | Path,
    target: str | Path,
    *,
    to: str = "parquet",
    options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a finished dataset in another format to a new folder, and return the number of samples written.

    `to` names the format: "parquet" (with image columns), "hf" (for `datasets.load_from_disk`), "folder" (plain files), "tars",
    "energon" or "mds" (for Megatron-Energon and MosaicML Streaming), "img2dataset" (caption pairs), "messages" or "llava"
    (conversations), "obelics" or "mmc4" (documents). docs/formats.md lists the formats with their options. `options` is a
    mapping, such as `{"form": "parquet"}` for "messages". `progress` is called after each shard with the number of finished
    samples and the number of all samples.

    The folder appears only when it is complete. If an export is killed, the same call continues after its last finished shard,
    and gives the same files. Samples that the format cannot hold are listed with the reason in the folder's `left_out.log`, and
    a warning gives their number. Raises RecipeError if the target exists, if `out` is not a finished dataset, if its first
    sample is of a kind that the format does not hold, or if the format can hold none of the samples.
    """
    out, target = path_of(out=out), path_of(target=target)
    check_choice(exports.names(), to=to)
    check_callable(progress=progress)
    if options is not None and not isinstance(options, Mapping):
        raise wrong("options", "a mapping such as {'form': 'parquet'}", options)
    check_name(target)
    target = Path(target).absolute()
    check_target(target)
    exporter = catalog.build(exports.find(to), dict(options or {}), f"export --to {to}")
    check_installed(exporter.modules, f"export --to {to}")
    manifest = read_manifest(out)
    check_place(target, out)
    store = open_store(out, probe=False)
    layout, kept = manifest["recipe"]["shards"]["layout"], manifest["kept"]
    kind = first_kind(store, layout) if kept else None
    if kind:
        _check_kind(exporter, to, kind, out)
    same = fingerprint(manifest, to, type(exporter).version, asdict(exporter), version())
    with (
        open_draft(target, same) as draft,
        CountLine("exporting samples", kept) as line,
        reported(line.add),
    ):
        draft.make()
        count = sum(1 for _ in _shard_names(store)) if kept else 0
        written = 0
        limit = manifest["recipe"]["shards"]["samples"]
        for shard in _shards(store, layout, exporter, count, limit) if kept else ():
            written += _record_of(exporter, shard, draft).samples
            line.show(written, kept)
            if progress:
                progress(written, kept)
        if kind:
            _finish(exporter, draft, count, written, to, out)
            if published := exporter.published(layout):
                text = export_card(manifest, to, published, member_names(store), kind, written)
                (draft.files / CARD).write_text(f"{text}\n", encoding="utf-8")
        if read_manifest(out) != manifest:
            raise RecipeError(f"{out} was changed during the export. Run the same command again")
        draft.publish(target)
    return written


def _write(exporter: Exporter, shard: Shard, draft: Draft) -> dict[str, Any]:
    """Write a shard. Raises RecipeError if the JSON of a stranger's sample has values that no file of the format can hold."""
    try:
        return exporter.write_shard(shard, draft) or {}
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        place = f"{shard.store.url}/{shard.name}"
        raise RecipeError(
            f"{place}: the JSON of a sample is invalid: {one_line(error)[:200]}. Build the dataset again"
        ) from None


def _record_of(exporter: Exporter, shard: Shard, draft: Draft) -> ShardRecord:
    """Write a shard, if this was not done before an interruption, and return its record."""
    record = draft.record(shard.number)
    if record is None:
        notes = _write(exporter, shard, draft)
        samples = len(shard.table) - len(shard.left_out)
        record = ShardRecord(shard.number, shard.name, samples, shard.left_out, notes)
        draft.add_record(record)
    return record


def _finish(exporter: Exporter, draft: Draft, count: int, written: int, to: str, out: str | Path) -> None:
    """Write what needs all shards, and the list of the samples that were left out."""
    if not written:
        key, reason = next(draft.records(count)).left_out[0]
        draft.remove()
        raise RecipeError(f"the format '{to}' can hold none of the samples of {out}. The first is {key}: {reason}")
    exporter.finish(draft, draft.records(count))
    if left := draft.write_left_out(count):
        what = f"{counted(left, 'sample')} {noun(left, 'is', 'are')}"
        warnings.warn(f"{what} left out, because the format '{to}' cannot hold them: see {LEFT_OUT}", stacklevel=3)


def _shard_names(store: Store) -> Iterator[str]:
    """Yield the name of each shard, in order. Only this column of the index is read."""
    last = None
    with open_index(store) as index:
        for group in index.groups(columns=("shard",)):
            for name in group["shard"].to_pylist():
                if name != last:
                    yield name
                last = name


def _shards(store: Store, layout: str, exporter: Exporter, count: int, limit: int) -> Iterator[Shard]:
    for number, (name, table) in enumerate(shards(store)):
        yield Shard(name, number, count, limit, layout, exporter.kinds(), store, table)


def _check_kind(exporter: Exporter, to: str, kind: Kind, out: str | Path) -> None:
    """Raise RecipeError if the format cannot hold a dataset of this kind."""
    holds = exporter.kinds()
    if kind not in holds:
        others = [name for name in exports.names() if kind in exports.find(name).holds]
        raise RecipeError(
            f"{out} holds {kind}, and the format '{to}' holds {' and '.join(holds)}. "
            f"Formats for {kind} are {', '.join(others[:-1])} and {others[-1]}{exporter.advice(kind)}"
        )
    exporter.check(kind)
