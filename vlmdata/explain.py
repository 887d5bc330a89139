"""Looks up the outcomes of rows in the ledger, by key, address, SHA-256 of an image, or reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from vlmdata.arguments import check_path, check_text, check_whole
from vlmdata.columns import COLUMNS
from vlmdata.dataset import read_manifest
from vlmdata.engine.output.ledger import ledger_files, take_rows, words_of
from vlmdata.engine.output.lookup import candidates
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.parquet_files import open_parquet
from vlmdata.engine.store.store_protocol import Store
from vlmdata.readable import is_empty, number, text, visible
from vlmdata.redact import redacted


def why(out: str | Path, word: str, *, limit: int = 20) -> list[dict[str, Any]]:
    """Return the ledger's lines about a row: its outcome, the step that decided it, and the measurements.

    `word` is a key, an address of a page or an image, or the SHA-256 of an image as fetched. It can also be a reason such
    as `min_side`. Then the first `limit` rows that were dropped for this reason are returned. Finding one row in ten million
    takes under a second. Raises RecipeError if `out` is not a finished dataset.
    """
    check_path(out=out)
    check_text(word=word)
    check_whole(1, limit=limit)
    manifest = read_manifest(out)
    store = open_store(out, probe=False)
    # The lookup has hashes of addresses with their secrets. So a signed address finds only its own row, although the ledger
    # stores addresses without secrets.
    found = [line for name in ledger_files(manifest) for line in _lines(store, name, word)]
    return found or dropped_for(out, word, limit)


def dropped_for(out: str | Path, reason: str, limit: int) -> list[dict[str, Any]]:
    """Return the ledger's first `limit` lines of rows dropped for a reason such as `bad_record`.

    Reading stops when `limit` rows are found. The ledger is not read at all if the manifest does not list the reason.
    """
    manifest = read_manifest(out)
    if reason not in {outcome["reason"] for outcome in manifest["dropped"]}:
        return []
    store = open_store(out, probe=False)
    found: list[dict[str, Any]] = []
    for name in ledger_files(manifest):
        with open_parquet(store, name) as file:
            for group in range(file.num_row_groups):
                reasons = file.read_row_group(group, columns=["reason"])["reason"]
                if pc.any(pc.equal(reasons, reason)).as_py():
                    rows = file.read_row_group(group).filter(pc.equal(reasons, reason))
                    found += rows.slice(0, limit - len(found)).to_pylist()
                if len(found) == limit:
                    return found
    return found


def _lines(store: Store, name: str, word: str) -> Iterator[dict[str, Any]]:
    rows = candidates(store, name, [word])
    if len(rows):
        yield from (line for line in take_rows(store, name, rows).to_pylist() if redacted(word) in words_of(line))


def tell(line: dict[str, Any], word: str) -> str:
    """Return a ledger line as text: the row's outcome, the step that decided it, and the measurements.

    The images and texts that were rejected are listed, and also the image whose address or SHA-256 is `word`.
    """
    outcome = f"kept in {line['shard']}" if line["outcome"] == "kept" else f"{line['outcome']} {_verdict(line)}".rstrip()
    lines = [f"{line['key']}  {outcome}"]
    if line["url"] is not None:
        lines.append(f"  address      {redacted(line['url'])}")
    if line["cluster"] is not None and line["cluster"] != line["key"]:
        lines.append(f"  duplicate of  {line['cluster']}")
    known = [name for name in ("place", "problem") if line.get(name) is not None]
    lines += [f"  {name:<12} {visible(redacted(line[name]), 400)}" for name in known]
    lines += _pieces("image", line["images"] or [], word)
    lines += _pieces("text", line["texts"] or [], word)
    measured = {name: value for name, value in line.items() if name not in COLUMNS and not is_empty(value)}
    return "\n".join([*lines, *(f"  {name:<12} {text(value)}" for name, value in sorted(measured.items()))])


def _pieces(what: str, pieces: list[dict[str, Any] | None], word: str) -> list[str]:
    """Return a line for each rejected image or text, and for the image whose address or SHA-256 is `word`."""
    lines = []
    for position, piece in enumerate(pieces):
        if piece is None or (piece["drop"] is None and word not in (piece.get("url"), piece.get("sha256"))):
            continue
        state = "kept" if piece["drop"] is None else f"dropped {_verdict({'step': piece['drop'], **piece})}"
        lines.append(f"  {what} {position:<6} {state}  {redacted(piece.get('url') or '')}".rstrip())
    return lines


def _verdict(of: dict[str, Any]) -> str:
    if of["step"] is None:
        return ""
    words = f"by {of['step']}" + (f": {of['reason']}" if of["reason"] else "")
    if of["value"] is not None:
        words += f", {number(of['value'])}" + (f" against {number(of['threshold'])}" if of["threshold"] is not None else "")
    return words
