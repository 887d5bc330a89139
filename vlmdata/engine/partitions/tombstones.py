"""Tombstones: hashes of forgotten content, so that no later run brings the content back.

Each `forget` writes one record in OUT/forgotten, which `clean` does not delete. The record holds keys (which are hashes),
BLAKE2b hashes of addresses, hosts and SHA-256 values, and perceptual hashes of images, if similar images are forgotten as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.engine.store.json_shapes import PendingTakedown, Takedown, read_record
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.store_protocol import Store
from vlmdata.recipe import Recipe
from vlmdata.row import IMAGE, ROW, drop_images, drop_rows, flatten, set_column
from vlmdata.step import Source
from vlmdata.steps.block_list import BlockList
from vlmdata.web.url import parse_url

FOLDER = "forgotten"
STEP = "forget"
REASON = "forgotten"
TAKEN_DOWN = "samples were taken down during this run"
KEY_DIGITS = 24  # hex digits of a key; identical rows have the same digits, and a number may follow them
# Finds the key of the old sample in `extra` of a row that was read from a tar of vlmdata.
SOURCE_KEY = re.compile(r'"source_key": ?"([0-9a-f]{24})')
CONTENT = (
    *("url", "images", "texts", "roles", "turns", "tools", "stated_hashes", "extra"),
    *("place", "problem", "cluster", "value", "threshold"),
)


@dataclass
class Tombstones:
    """Content that a dataset must not hold again.

    A row matches by its key, or by the address or host of its page or of an image. An image also matches by its bytes.
    """

    hashes: set[str] = field(default_factory=set)  # hashes of the strings "url ...", "domain ..." and "sha256 ..."
    keys: set[str] = field(default_factory=set)  # keys of rows, without the number that marks a repeated row
    likenesses: list[tuple[int, int]] = field(default_factory=list)  # perceptual hash, largest distance in bits
    records: int = 0  # number of takedown records that were read
    blocks: BlockList | None = None  # the recipe's block lists, which are checked like tombstones but give other reasons

    def __bool__(self) -> bool:
        return bool(self.hashes or self.keys or self.likenesses or self.blocks)

    def holds_address(self, url: str | None) -> bool:
        """Return whether an address, its host or a domain above it was forgotten."""
        if url is None:
            return False
        return hash_of("url", url) in self.hashes or any(hash_of("domain", host) in self.hashes for host in domains_of(url))

    def holds_image(self, sha256: str | None, phash: int | None) -> bool:
        """Return whether an image with these hashes was forgotten. `phash` is a 64-bit integer."""
        if sha256 is not None and hash_of("sha256", sha256) in self.hashes:
            return True
        return phash is not None and any((phash ^ like).bit_count() <= bits for like, bits in self.likenesses)

    def apply(self, rows: pa.Table) -> pa.Table:
        """Return all rows. A forgotten row keeps only its key, and its `drop` is set."""
        if not self or not len(rows):
            return rows
        if self.blocks:
            rows = _without_bytes(self.blocks.decide(rows), self.blocks.name)
        images = flatten(rows, "images")
        bad = np.array([key[:KEY_DIGITS] in self.keys for key in rows["key"].to_pylist()], dtype=bool)
        bad |= self._taken_from(rows["extra"].to_pylist())
        bad |= [self.holds_address(url) for url in rows["url"].to_pylist()]
        by_address = np.array([self.holds_address(url) for url in images.field("url").to_pylist()], dtype=bool)
        bad[images.parents[by_address]] = True
        hashes = zip(*(images.field(name).to_pylist() for name in ("sha256", "phash", "data")), strict=True)
        same = [self.holds_image(sha or (data and hashlib.sha256(data).hexdigest()), like) for sha, like, data in hashes]
        rows = drop_images(rows, np.array(same, dtype=bool), STEP, reason=REASON)
        rows = drop_rows(rows, bad, STEP, reason=REASON)
        return blank(rows, bad | np.array([drop == STEP for drop in rows["drop"].to_pylist()], dtype=bool))

    def _taken_from(self, extras: list[str | None]) -> np.ndarray:
        """Return which rows were read from a sample that was forgotten, bool (N,). `extras` is the rows' column `extra`."""
        if not self.keys:
            return np.zeros(len(extras), dtype=bool)
        found = [SOURCE_KEY.search(extra or "") for extra in extras]
        return np.array([hit is not None and hit[1] in self.keys for hit in found], dtype=bool)


def _without_bytes(rows: pa.Table, step: str) -> pa.Table:
    """Return all rows, but without the inline bytes of images that `step` rejected. These bytes must not reach any file."""
    images = flatten(rows, "images")
    gone = pc.fill_null(pc.equal(images.field("drop"), step), False)
    if not pc.any(pc.and_(gone, images.field("data").is_valid())).as_py():
        return rows
    fields = [images.field(f.name) if f.name != "data" else pc.if_else(gone, None, images.field("data")) for f in IMAGE]
    items = pa.StructArray.from_arrays(fields, fields=list(IMAGE), mask=images.items.is_null())
    return set_column(rows, "images", images.rebuild(items))


def blank(rows: pa.Table, where: np.ndarray) -> pa.Table:
    """Return all rows. A row where `where` is true keeps only its key.

    Its `drop` becomes "forget", and its `reason` becomes "forgotten".
    """
    if not where.any():
        return rows
    kept = pa.array(np.arange(len(rows)), mask=where)
    for name in rows.column_names:
        if name in CONTENT or name not in ROW.names:
            rows = set_column(rows, name, rows[name].combine_chunks().take(kept))
    for name, word in (("drop", STEP), ("reason", REASON)):
        if name in rows.column_names:
            old = rows[name].to_pylist()
            rows = set_column(
                rows, name, pa.array([word if hit else o for hit, o in zip(where, old, strict=True)], pa.string())
            )
    return rows


def hash_of(kind: str, value: str) -> str:
    """Return the 128-bit hash of an address, a host or a SHA-256, in hex. `kind` is "url", "domain" or "sha256"."""
    return hashlib.blake2b(f"{kind} {value}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def domains_of(url: str) -> list[str]:
    """Return an address's host and the domains above it, such as a.b.org, b.org and org for https://a.b.org/.

    A host with other characters than ASCII is returned in its ASCII form too, so that both ways to write it are found.
    """
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # an unclosed bracket: such an address has no host
        return []
    hosts = [host]
    if not host.isascii() and (parsed := parse_url(f"http://{host}/")) is not None:
        hosts.append(parsed.host)
    found = [one.split(".") for one in hosts if one]
    return [".".join(labels[start:]) for labels in found for start in range(len(labels))]


def records(store: Store) -> list[tuple[str, dict[str, Any]]]:
    """Return the name and content of every takedown record, oldest first. Raises RecipeError for a damaged record."""
    return [(name, _read(store, name)) for name in _names(store)]


def is_pending(store: Store) -> bool:
    """Return whether the last takedown has written its record but is not finished."""
    names = _names(store)
    return bool(names) and "swap" in _read(store, names[-1])


def _names(store: Store) -> list[str]:
    return [name for name in store.list(FOLDER) if name.endswith(".json")]


def _read(store: Store, name: str) -> dict[str, Any]:
    fix = "Restore this record. Without the record, samples that were taken down would come back"
    record = read_record(store, name, Takedown, fix)
    return read_record(store, name, PendingTakedown, fix) if "swap" in record else record


def load(store: Store, recipe: Recipe | None = None) -> Tombstones:
    """Return all tombstones of a dataset and, if a recipe is given, the block lists of the recipe."""
    blocks = next((step for step in recipe.steps if isinstance(step, BlockList)), None) if recipe else None
    found = Tombstones(blocks=blocks)
    for _, record in records(store):
        found.records += 1
        found.hashes |= set(record["hashes"])
        found.keys |= {key[:KEY_DIGITS] for key in record["keys"]}
        found.likenesses += [(int(like, 16), bits) for like, bits in record["likenesses"]]
    return found


def are_all(store: Store, known: Tombstones) -> bool:
    """Return whether `known` holds all tombstones. If it does not, a takedown happened after `known` was loaded.

    The check is cheap, because it only lists one folder of the store.
    """
    return len(_names(store)) == known.records


def adopt(store: Store, source: Source) -> None:
    """Copy the tombstones of the datasets that a source reads. Call it before the plan is made.

    The tombstones of a dataset are beside its tars, or one folder above the files that were exported from it.
    """
    files = [os.path.dirname(path) for path, _ in source.files() if path.startswith("/") or "://" in path]
    folders = sorted({*files, *(os.path.dirname(folder) for folder in files)})
    for folder in folders:
        for _, record in records(open_store(folder, probe=False)) if _can_be_listed(folder) else []:
            mine = records(store)
            tombstone = {name: record[name] for name in ("at", "keys", "hashes", "likenesses")} | {"rows": 0}
            if tombstone not in [known for _, known in mine]:
                store.put_new(f"{FOLDER}/{len(mine):05d}.json", json.dumps(tombstone, sort_keys=True).encode())


def _can_be_listed(folder: str) -> bool:
    return folder.strip("/") != "" and not folder.endswith((":", ":/")) and not folder.startswith(("http:", "https:", "hf:"))
