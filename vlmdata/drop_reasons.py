"""Finds the rows that a step dropped, or that were dropped for a reason, and lists the reasons that occur in a dataset."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.dataset import read_manifest
from vlmdata.engine.output.ledger import ledger_files
from vlmdata.engine.output.manifest import step_entries
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.parquet_files import open_parquet
from vlmdata.readable import visible
from vlmdata.row import flatten

NAMED = 12  # reasons that a message lists


class Found(NamedTuple):
    """The first lines of the ledger that were found, and the number of all of them."""

    lines: list[dict[str, Any]]
    total: int


def dropped_for(out: str | Path, word: str, limit: int) -> Found:
    """Return the ledger's first `limit` lines of rows that were dropped for `word`, and how many there are.

    `word` is a step, a reason, or both as `vlmdata show` prints them: `image_size`, `min_side` or `image_size: min_side`. If no
    row was dropped so, the result has the rows in which an image or a text was rejected so. The ledger is read only if the
    manifest lists the word as a reason, or if it may be a verdict about images and texts.
    """
    manifest = read_manifest(out)
    counts = {(line["step"], line["reason"]): line["rows"] for line in manifest["dropped"]}
    if rules := [rule for rule in counts if _is_meant(*rule, word)]:
        return Found(_lines(out, manifest, word, limit), sum(counts[rule] for rule in rules))
    return _with_rejected_pieces(out, manifest, word, limit) if _may_be_verdict(word) else Found([], 0)


def reasons_line(out: str | Path, word: str) -> str:
    """Return the end of a message about a word that was not found: the nearest reason, and the reasons for drops.

    It is empty for an address or a key.
    """
    if not _may_be_verdict(word):
        return ""
    manifest = read_manifest(out)
    names = [_name(line["step"], line["reason"]) for line in manifest["dropped"]]
    if word in [label for *_, label in step_entries(manifest["recipe"])]:
        start = f". The step {word} dropped no row"
    else:
        short = {part: name for name in names for part in (name, *name.split(": "))}
        close = difflib.get_close_matches(word, short, 1, 0.7)
        start = f". Did you mean '{close[0]}'?" if close else ""
    if not names:
        return f"{start.removesuffix('?')}. No row was dropped"
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    end = "" if start.endswith("?") else "."
    return f"{start}{end} Rows were dropped by {', '.join(map(visible, names[:NAMED]))}{more}"


def _name(step: str, reason: str | None) -> str:
    return f"{step}: {reason or 'dropped'}"


def _is_meant(step: str | None, reason: str | None, word: str) -> bool:
    if step is None:
        return False
    first, colon, rest = word.partition(":")
    return word in (step, reason) or (bool(colon) and f"{first.strip()}: {rest.strip()}" == _name(step, reason))


def _may_be_verdict(word: str) -> bool:
    """Return whether a word may be a step or a reason. An address or a key would be searched in the whole ledger in vain."""
    return "/" not in word and not (len(word) >= 24 and set(word.partition("_")[0]) <= set("0123456789abcdefABCDEF"))


def _mask(steps: pa.Array, reasons: pa.Array, word: str) -> np.ndarray:
    """Return which of the verdicts are meant by `word`: bool (N,)."""
    pairs = pa.table({"step": steps, "reason": reasons})
    known = pairs.group_by(["step", "reason"]).aggregate([]).to_pylist()
    hit = np.zeros(len(pairs), dtype=bool)
    for rule in known:
        if _is_meant(rule["step"], rule["reason"], word):
            same = pc.is_null(reasons) if rule["reason"] is None else pc.equal(reasons, rule["reason"])
            hit |= np.asarray(pc.and_(pc.equal(steps, rule["step"]), same).fill_null(False))
    return hit


def _lines(out: str | Path, manifest: dict[str, Any], word: str, limit: int) -> list[dict[str, Any]]:
    """Return the first lines of dropped rows. Reading stops when `limit` lines are found."""
    store = open_store(out, probe=False)
    found: list[dict[str, Any]] = []
    for name in ledger_files(manifest):
        with open_parquet(store, name) as file:
            for group in range(file.num_row_groups):
                verdicts = file.read_row_group(group, columns=["step", "reason"]).combine_chunks()
                hit = _mask(verdicts["step"].combine_chunks(), verdicts["reason"].combine_chunks(), word)
                if hit.any():
                    rows = file.read_row_group(group).filter(pa.array(hit))
                    found += rows.slice(0, limit - len(found)).to_pylist()
                if len(found) == limit:
                    return found
    return found


def _with_rejected_pieces(out: str | Path, manifest: dict[str, Any], word: str, limit: int) -> Found:
    """Return the rows in which an image or a text was rejected for `word`. The whole ledger is read."""
    store = open_store(out, probe=False)
    found: list[dict[str, Any]] = []
    count = 0
    for name in ledger_files(manifest):
        with open_parquet(store, name) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=["images", "texts"])
                hit = np.zeros(len(table), dtype=bool)
                for column in ("images", "texts"):
                    flat = flatten(table, column)
                    hit[flat.parents[_mask(flat.field("drop"), flat.field("reason"), word)]] = True
                count += int(hit.sum())
                if hit.any() and len(found) < limit:
                    rows = file.read_row_group(group).filter(pa.array(hit))
                    found += rows.slice(0, limit - len(found)).to_pylist()
    return Found(found, count)
