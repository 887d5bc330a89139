"""Takedowns: find samples, remove them from every file, and keep later runs from adding them again.

The changed files are written next to the files in use. Then one record in the folder `forgotten` commits the takedown. Before
this record exists, the dataset is unchanged. If a takedown is interrupted after the commit, the next command that changes the
dataset finishes it, and commands that only read fail until then. While files are swapped, the dataset has no manifest and no
index, so that no reader applies the offsets of one tar to another.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.arguments import check_bool, check_whole, path_of, paths_of, texts_of
from vlmdata.dataset import finish_pending, read_manifest, settle
from vlmdata.engine.forget import erase, rewrite
from vlmdata.engine.output import provenance
from vlmdata.engine.output.ledger import PARTS, ledger_files, take_rows, words_of
from vlmdata.engine.output.lookup import candidates
from vlmdata.engine.output.manifest import alone, confirm_alone, load_manifest
from vlmdata.engine.partitions import plan as plans
from vlmdata.engine.partitions import tombstones
from vlmdata.engine.partitions.tombstones import FOLDER, KEY_DIGITS, REASON, STEP, domains_of, hash_of, is_pending
from vlmdata.engine.store.json_shapes import WORK_FIX, PartitionsRecord, read_record
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.parquet_files import open_parquet
from vlmdata.engine.store.store_protocol import Store
from vlmdata.forget_words import domain_of, key_of, sha256_of
from vlmdata.redact import redacted, redacted_tree
from vlmdata.row import flatten
from vlmdata.step import RecipeError

LEDGER = ["key", "url", "outcome", "step", "reason", "shard", "images"]
LEDGER_THREADS = 2
LIKENESS_BITS = 4  # of 64 bits. Downscaling and strong compression changed at most 4 bits in 191 photos (images/phash.py).


@dataclass(frozen=True)
class Request:
    """The samples to forget. A domain includes its subdomains. `likenesses` holds perceptual hashes of images.

    A likeness matches every image whose perceptual hash differs from the likeness in at most `bits` of 64 bits.
    """

    urls: list[str] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    likenesses: list[int] = field(default_factory=list)
    bits: int = LIKENESS_BITS

    def names_any(self) -> bool:
        """Return whether the request names any sample."""
        return bool(self.words() or self.domains or self.likenesses)

    def words(self) -> list[str]:
        """Return the addresses, keys and SHA-256, which are the values that the ledger's lookup can find."""
        return [*self.urls, *self.keys, *self.sha256]


def likeness(image: str | Path) -> int:
    """Return the perceptual hash of an image file. Raises RecipeError if the file cannot be read as an image."""
    from vlmdata.images.budget import OWN_FILES_MB
    from vlmdata.images.decode import decode
    from vlmdata.images.facts import ImageError
    from vlmdata.images.phash import phash

    try:
        return phash(decode(Path(image).read_bytes(), max_memory_mb=OWN_FILES_MB).pixels)
    except (OSError, ImageError) as error:
        raise RecipeError(f"cannot read {image} as an image: {error}") from None


def forget(
    out: str | Path,
    *,
    url: str | Sequence[str] = (),
    domain: str | Sequence[str] = (),
    key: str | Sequence[str] = (),
    sha256: str | Sequence[str] = (),
    like: str | Path | Sequence[str | Path] = (),
    bits: int = LIKENESS_BITS,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Remove samples from a dataset, and return a receipt: what was removed, from which tars, and what was not found.

    `url` holds addresses of pages or images. `domain` holds domains, which include their subdomains. `key` holds keys of
    samples. `sha256` holds hashes of images as fetched. `like` holds image files, each of which removes all images with a
    perceptual hash that differs from the file's hash in at most `bits` of 64 bits. An address removes every copy of its image.
    If a document contains a removed image, the whole document is removed. Later runs do not add the removed samples again, and
    they do not add samples that were named but not found.

    With `dry_run`, nothing is removed. If no sample is named, an interrupted takedown is finished and the receipt is empty.
    Raises RecipeError if no sample is named and no takedown was interrupted, if a domain, a key or
    a SHA-256 cannot be one, if a file in `like` is not an image, or if `out` is not a finished dataset.
    """
    out = path_of(out=out)
    check_whole(0, bits=bits)
    check_bool(dry_run=dry_run)
    request = Request(
        texts_of(url=url),
        [domain_of(word) for word in texts_of(domain=domain)],
        [key_of(word) for word in texts_of(key=key)],
        [sha256_of(word) for word in texts_of(sha256=sha256)],
        [likeness(image) for image in paths_of(like=like)],
        bits,
    )
    if not (request.names_any() or dry_run) and finish(out):
        return {}
    return take_down(out, request, dry_run=dry_run)


def take_down(out: str | Path, request: Request, *, dry_run: bool = False) -> dict[str, Any]:
    """Remove all samples that the request names, and return the receipt. With `dry_run`, only return the receipt."""
    if not request.names_any():
        raise RecipeError("there is no sample to forget. Give an address, a domain, a key, a SHA-256 or an image file")
    if not dry_run:
        settle(open_store(out, probe=False))
    read_manifest(out)  # raises if there is no finished dataset
    store = open_store(out)
    with alone(store):
        if not dry_run:
            finish_pending(store)
        return _forget(store, str(out), request, dry_run)


def finish(out: str | Path) -> bool:
    """Finish a takedown of `out` that was committed but interrupted. Return False if there is no such takedown."""
    store = open_store(out, probe=False)
    found = is_pending(store)
    settle(store)
    return found


def _forget(store: Store, out: str, request: Request, dry_run: bool) -> dict[str, Any]:
    manifest = load_manifest(store)
    found, lines = _find(store, manifest, request)
    urls = set(map(redacted, request.urls))
    same = {
        image["sha256"]
        for line in lines
        for image in line["images"] or []
        if image and image["url"] and redacted(image["url"]) in urls
    }
    if same := same - {None, *request.sha256}:  # an address also removes its image under every other address
        wider = replace(request, sha256=[*request.sha256, *sorted(same)])
        found, lines = _find(store, manifest, wider)
    else:
        wider = request
    receipt = _receipt(out, manifest, request, lines)
    if not dry_run:
        folder = f"{FOLDER}/{uuid.uuid4().hex}"
        record = _record(store, folder, manifest, wider, found, lines)
        number = len(tombstones.records(store))
        confirm_alone(store)
        if not store.put_new(f"{FOLDER}/{number:05d}.json", json.dumps(record, sort_keys=True).encode()):
            raise RecipeError(f"{out}: another takedown was committed first. Run the same command again")
        finish_pending(store)
    return receipt


def _find(store: Store, manifest: dict[str, Any], request: Request) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """Find the rows that match the request. Return their row numbers (ledger file -> array) and their ledger lines."""
    found = {name: rows for name in ledger_files(manifest) if len(rows := _rows_in(store, name, request))}
    lines = [line for name, rows in found.items() for line in take_rows(store, name, rows, LEDGER).to_pylist()]
    return found, lines


def _rows_in(store: Store, name: str, request: Request) -> np.ndarray:
    """Return the row numbers in one ledger file that match the request, sorted: int64 (N,)."""
    words = request.words()
    found = [candidates(store, name, words)]
    while request.keys and len(found[-1]):  # the keys of a row's copies are the row's key with _1, _2 ... at the end
        repeat = [f"{key}_{len(found)}" for key in request.keys]
        found.append(candidates(store, name, repeat))
        words = [*words, *repeat]
    near = np.unique(np.concatenate(found))
    wanted = set(map(redacted, words))
    lines = take_rows(store, name, near, ["key", "url", "outcome", "images"]).to_pylist() if len(near) else []
    hits = [row for row, line in zip(near, lines, strict=True) if line["outcome"] != REASON and words_of(line) & wanted]
    return np.unique(np.concatenate([np.array(hits, dtype=np.int64), *_scanned(store, name, request)]))


def _scanned(store: Store, name: str, request: Request) -> list[np.ndarray]:
    """Return the numbers of the rows that match the domains or likenesses of the request, as arrays (N,).

    This reads the whole ledger file, because the ledger's lookup cannot find domains or likenesses.
    """
    if not (request.domains or request.likenesses):
        return []
    found, first = [], 0
    with open_parquet(store, name) as file:
        for batch in file.iter_batches(100_000, columns=["url", "images"]):
            rows = pa.table(batch)
            images = flatten(rows, "images")
            hit = _in_domains(rows["url"].combine_chunks(), request.domains)
            hit[images.parents[_in_domains(images.field("url"), request.domains)]] = True
            known = np.asarray(images.field("phash").fill_null(0).to_numpy(zero_copy_only=False), dtype=np.uint64)
            there = images.field("phash").is_valid().to_numpy(zero_copy_only=False)
            for like in request.likenesses:
                hit[images.parents[there & (np.bitwise_count(known ^ np.uint64(like)) <= request.bits)]] = True
            found.append(np.flatnonzero(hit) + first)
            first += len(rows)
    return found


def _in_domains(urls: pa.Array, domains: list[str]) -> np.ndarray:
    """Return a bool per address: true if the host is one of these domains or a subdomain of one of them."""
    hit = np.zeros(len(urls), dtype=bool)
    if domains:
        wanted = {domain.lower().rstrip(".") for domain in domains}
        near = np.zeros(len(urls), dtype=bool)
        for domain in wanted:
            near |= pc.match_substring(urls, domain, ignore_case=True).fill_null(False).to_numpy(zero_copy_only=False)
            if "xn--" in domain:  # addresses may have the domain in other letters than ASCII
                near |= pc.match_substring_regex(urls, r"[^\x00-\x7f]").fill_null(False).to_numpy(zero_copy_only=False)
        at = np.flatnonzero(near)
        hit[at] = [not wanted.isdisjoint(domains_of(url)) for url in urls.take(pa.array(at)).to_pylist()]
    return hit


def _record(
    store: Store, folder: str, manifest: dict[str, Any], request: Request, found: dict[str, Any], lines: list[dict[str, Any]]
) -> dict[str, Any]:
    """Write the changed files into `folder`, and return the record that commits the takedown.

    The record lists hashes of the removed content (tombstones), and the new file for each file that changes.
    """
    keys = {line["key"][:KEY_DIGITS] for line in lines} | {key[:KEY_DIGITS] for key in request.keys}
    cells = _cells_of(store, manifest, found)
    if cells is None:
        cells, more = _cells(store, keys, request)
        keys |= more
    kept = sorted(line["key"] for line in lines if line["outcome"] == "kept")
    files: dict[str, Any] = {}
    sums = manifest["provenance"]
    with ThreadPoolExecutor(LEDGER_THREADS) as pool:
        ledgers = [pool.submit(rewrite.ledger_without, store, folder, name, rows) for name, rows in found.items()]
        if kept:
            files, gone = rewrite.shards_without(store, folder, pa.array(kept, pa.string()))
            sums = provenance.total([gone], -1, sums)
        for job in ledgers:
            files |= job.result()
    hashes = {hash_of("url", url) for url in request.urls} | {hash_of("sha256", sha.lower()) for sha in request.sha256}
    hashes |= {hash_of("domain", domain.lower().rstrip(".")) for domain in request.domains}
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": len(lines),
        "keys": sorted(keys),
        "hashes": sorted(hashes),
        "likenesses": [[f"{like:016x}", request.bits] for like in request.likenesses],
        "cells": {str(partition): rows for partition, rows in cells.items()},
        "folder": folder,
        "swap": {name: facts and facts["file"] for name, facts in files.items()},
        "manifest": {**_renewed(manifest, files, lines), "provenance": sums},
    }


def _cells_of(store: Store, manifest: dict[str, Any], found: dict[str, np.ndarray]) -> erase.Cells | None:
    """Convert the rows that were found in the ledger to places in work/: partition -> row numbers in the partition.

    `found` maps each ledger file to row numbers in this file. Returns None if the row numbers cannot be converted, because the
    ledger does not list all rows of the plan, for example after a run with a limit.
    """
    plan = plans.load(store)
    try:
        partitions = read_record(store, PARTS, PartitionsRecord, WORK_FIX)["parts"]
    except FileNotFoundError:
        return {} if plan is None else None
    if plan is None or len(partitions) != plan.parts or any(take is not None for _, take, _ in partitions):
        return None
    ends = np.cumsum([count for _, _, count in partitions])
    before, cells = 0, defaultdict(list)
    for name in ledger_files(manifest):
        for row in (before + found.get(name, np.zeros(0, np.int64))).tolist():
            at = int(np.searchsorted(ends, row, "right"))
            cells[partitions[at][0]].append(row - int(ends[at] - partitions[at][2]))
        before += manifest["files"][name]["rows"]
    return dict(cells)


def _cells(store: Store, keys: set[str], request: Request) -> tuple[erase.Cells, set[str]]:
    """Find the rows in work/ that match the keys, addresses or domains, including rows that no ledger lists.

    Return their places (partition -> row numbers in the partition) and their keys.
    """
    cells: erase.Cells = {}
    more: set[str] = set()
    wanted, urls = pa.array(sorted(keys), pa.string()), pa.array(request.urls, pa.string())
    for partition, rows in erase.planned(store, ["key", "url", "images"]):
        own = pc.utf8_slice_codeunits(rows["key"].combine_chunks(), 0, KEY_DIGITS)
        hit = np.array(pc.is_in(own, wanted))
        if "url" in rows.column_names:
            hit |= _named(rows["url"].combine_chunks(), urls, request.domains)
        if "images" in rows.column_names and request.urls + request.domains:
            images = flatten(rows, "images")
            if "url" in [one.name for one in images.items.type]:
                hit[images.parents[_named(images.field("url"), urls, request.domains)]] = True
        if hit.any():
            cells[partition] = np.flatnonzero(hit).tolist()
            more |= set(own.filter(pa.array(hit)).to_pylist())
    return cells, more


def _named(column: pa.Array, urls: pa.Array, domains: list[str]) -> np.ndarray:
    return np.array(pc.is_in(column, urls)) | _in_domains(column, domains)


def _renewed(manifest: dict[str, Any], files: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the manifest after the takedown. It lists the changed files, and its counts leave out the removed ledger lines."""
    listed = dict(manifest["files"])
    for name, facts in files.items():
        if facts is None:
            del listed[name]
        else:
            listed[name] = {**listed[name], **{key: value for key, value in facts.items() if key != "file"}}
    gone = Counter((line["step"], line["reason"]) for line in lines if line["outcome"] != "kept")
    dropped = [{**line, "rows": line["rows"] - gone[line["step"], line["reason"]]} for line in manifest["dropped"]]
    before = sum(line["rows"] for line in dropped if line["step"] == STEP)
    dropped = [line for line in dropped if line["rows"] and line["step"] != STEP]
    if before + len(lines):
        dropped.append({"step": STEP, "reason": REASON, "rows": before + len(lines)})
    kept = manifest["kept"] - sum(line["outcome"] == "kept" for line in lines)
    recipe = redacted_tree(manifest["recipe"])  # manifests of earlier versions hold addresses with secrets
    return {**manifest, "recipe": recipe, "kept": kept, "dropped": dropped, "files": listed}


def _receipt(out: str, manifest: dict[str, Any], request: Request, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the receipt of a takedown. It names what was removed, so it must be kept outside the dataset."""
    there = {word for line in lines for word in words_of(line)} | {line["key"][:KEY_DIGITS] for line in lines}
    removed = []
    for line in lines:
        images = [{name: image[name] for name in ("url", "sha256")} for image in line["images"] or [] if image]
        removed.append({**{name: line[name] for name in ("key", "url", "outcome", "shard")}, "images": images})
    return {
        "dataset": out,
        "removed": removed,
        "samples": sum(line["outcome"] == "kept" for line in lines),
        "shards": sorted({line["shard"] for line in lines if line["shard"]}),
        "not_found": [word for word in request.words() if redacted(word) not in there] + _without_rows(request, lines),
        "not_touched": manifest["recipe"]["source"].get("path"),  # the takedown does not change the source's files
    }


def _without_rows(request: Request, lines: list[dict[str, Any]]) -> list[str]:
    """Return the domains and the perceptual hashes of the request that match none of the ledger lines that were found."""
    images = [image for line in lines for image in line["images"] or [] if image]
    urls = [line["url"] for line in lines] + [image["url"] for image in images]
    hosts = {host for url in urls if url is not None for host in domains_of(url)}
    hashes = [image["phash"] for image in images if image["phash"] is not None]
    likes = [like for like in request.likenesses if all((like ^ known).bit_count() > request.bits for known in hashes)]
    return [domain for domain in request.domains if domain not in hosts] + [f"{like:016x}" for like in likes]
