"""Looks up the outcomes of rows in the ledger, by key, address, SHA-256 of an image, step or reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmdata.arguments import check_text, check_whole, path_of
from vlmdata.columns import COLUMNS
from vlmdata.dataset import read_manifest
from vlmdata.drop_reasons import Found, dropped_for
from vlmdata.engine.output.ledger import ledger_files, take_rows, words_of
from vlmdata.engine.output.lookup import candidates
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.store_protocol import Store
from vlmdata.readable import is_empty, number, text, visible
from vlmdata.redact import redacted


def why(out: str | Path, word: str, *, limit: int = 20) -> list[dict[str, Any]]:
    """Return the ledger's lines about a row: its outcome, the step that decided it, and the measurements.

    `word` is a key, an address of a page or an image, or the SHA-256 of an image as fetched. It can also be a step, a reason or
    both, as `vlmdata show` prints them: `image_size`, `min_side` or `image_size: min_side`. Then the first `limit` rows that
    were dropped there are returned. Finding one row in ten million takes under a second. Raises RecipeError if `out` is not a
    finished dataset.
    """
    return find(out, word, limit=limit).lines


def find(out: str | Path, word: str, *, limit: int = 20) -> Found:
    """Return the lines of `why`, and the number of all rows that were dropped for a step or a reason."""
    out = path_of(out=out)
    check_text(word=word)
    check_whole(1, limit=limit)
    manifest = read_manifest(out)
    store = open_store(out, probe=False)
    # The lookup has hashes of addresses with their secrets. So a signed address finds only its own row, although the ledger
    # stores addresses without secrets.
    found = [line for name in ledger_files(manifest) for line in _lines(store, name, word)]
    return Found(found, len(found)) if found else dropped_for(out, word, limit)


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
