"""Compares two datasets: which rows were added, removed or changed, and which step caused each change."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from vlmdata.arguments import path_of
from vlmdata.dataset import read_manifest
from vlmdata.engine.output.ledger import ledger_files
from vlmdata.engine.output.samples_index import open_index, read_open, read_span, sample_of
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.parquet_files import damage, open_parquet
from vlmdata.engine.store.store_protocol import Store
from vlmdata.generation.asking_step import AskingStep
from vlmdata.images.formats import IMAGE_EXTENSIONS
from vlmdata.loader.index.index_file import INDEX_FILE
from vlmdata.recipe import parse
from vlmdata.sizes import counted
from vlmdata.step import RecipeError

COLUMNS = ["key", "outcome", "step", "reason"]
PLACE = ("key", "shard", "offset", "size")
TEXTS = ("caption", "alternatives", "origins", "grounding", "texts", "roles", "turns", "tools")  # fields of a sample's JSON
OF_IMAGES = (
    *("width", "height", "original_width", "original_height", "sha256", "phash"),
    *("boxes", "original_boxes", "view", "metadata"),
)
ALIGNED = ("files", "images", "metadata")  # lists with an item or null for each position of a document
EXAMPLES = 3
KEPT, ABSENT = "kept", "not there"


@dataclass
class Change:
    """Rows that changed in the same way. `before` and `after` are "kept", "not there", or the step and reason of the rejection.

    For rows that are kept in both datasets with different samples, `after` names the difference and the step that caused it.
    """

    before: str
    after: str
    rows: int = 0
    keys: list[str] = field(default_factory=list)  # the smallest keys, at most EXAMPLES of them


@dataclass
class Side:
    """One of the two compared datasets. `fates` holds the key and outcome of each row, and `places` locates each sample."""

    store: Store
    manifest: dict[str, Any]
    fates: pa.Table
    places: pa.Table


def diff(a: str | Path, b: str | Path) -> list[Change]:
    """Compare two datasets row by row, and return the changes. Changes of many rows come first. Unchanged rows are left out.

    Samples are compared by their bytes, but tars with the same SHA-256 are not read. The keys and outcomes of both ledgers
    and both indexes are held in memory, about 200 bytes per row. Raises RecipeError if `a` or `b` is not a finished dataset.
    """
    a, b = path_of(a=a), path_of(b=b)
    left, right = _side(a), _side(b)
    joined = left.fates.join(right.fates, "key", join_type="full outer", right_suffix="_b").sort_by("key")
    before, after = (pc.fill_null(joined[name], ABSENT) for name in ("fate", "fate_b"))
    changes: dict[tuple[str, str], Change] = {}
    differs = pc.not_equal(before, after)
    for key, was, became in zip(
        *(column.filter(differs).to_pylist() for column in (joined["key"], before, after)), strict=True
    ):
        _note(changes, was, became, key)
    both = joined["key"].filter(pc.and_(pc.equal(before, KEPT), pc.equal(after, KEPT)))
    for key, what in _other_samples(left, right, both):
        _note(changes, KEPT, f"kept, but changed: {what}", key)
    return sorted(changes.values(), key=lambda change: (-change.rows, change.before, change.after))


def _note(changes: dict[tuple[str, str], Change], before: str, after: str, key: str) -> None:
    change = changes.setdefault((before, after), Change(before, after))
    change.rows += 1
    if len(change.keys) < EXAMPLES:
        change.keys.append(key)


def _side(out: str | Path) -> Side:
    manifest, store = read_manifest(out), open_store(out, probe=False)
    empty = pa.table({"key": pa.array([], pa.string()), "fate": pa.array([], pa.string())})
    fates = [empty, *(table for name in ledger_files(manifest) for table in _ledger(store, name))]
    return Side(store, manifest, pa.concat_tables(fates), _places(store, manifest))


def _ledger(store: Store, name: str) -> Iterator[pa.Table]:
    with open_parquet(store, name) as file:
        for batch in file.iter_batches(200_000, columns=COLUMNS):
            if batch["key"].null_count:
                raise damage(store, name, "a row has no key")
            rejected = pc.binary_join_element_wise(batch["step"], pc.fill_null(batch["reason"], "dropped"), ": ")
            fate = pc.if_else(pc.equal(batch["outcome"], KEPT), KEPT, rejected)
            yield pa.table({"key": batch["key"], "fate": fate})


def _places(store: Store, manifest: dict[str, Any]) -> pa.Table:
    """Return a table with a row for each sample: key, shard, offset, size, and `tar` (the SHA-256 of its tar)."""
    with open_index(store) as index:
        groups = list(index.groups(PLACE))
        places = pa.concat_tables([index.schema.empty_table().select(PLACE), *groups]).unify_dictionaries()
    shards = places["shard"].cast(pa.string())
    tars = {name: facts["sha256"] for name, facts in manifest["files"].items() if name.endswith(".tar")}
    digests = pa.array(list(tars.values()), pa.string()).take(pc.index_in(shards, pa.array(list(tars), pa.string())))
    return pa.table({"key": places["key"], "shard": shards, "offset": places["offset"], "size": places["size"], "tar": digests})


def _other_samples(a: Side, b: Side, keys: pa.ChunkedArray) -> Iterator[tuple[str, str]]:
    """Yield the key of each sample that differs, with a description of the difference, in the order of `keys`."""
    at_a, at_b = (_places_of(side, keys) for side in (a, b))
    same_place = pc.and_(pc.equal(at_a["tar"], at_b["tar"]), pc.equal(at_a["offset"], at_b["offset"]))
    unsure = np.flatnonzero(~np.asarray(pc.fill_null(same_place, False)))
    if not len(unsure):
        return
    contents = _contents(a.store, at_a.take(unsure)), _contents(b.store, at_b.take(unsure))
    text_steps, own = _steps_of(a, b, "texts"), _names_of_steps(a, b)
    for row in np.flatnonzero(contents[0] != contents[1]):
        one, other = (_members(side.store, at.slice(int(unsure[row]), 1)) for side, at in ((a, at_a), (b, at_b)))
        with sample_of(b.store, at_b["shard"][int(unsure[row])].as_py(), keys[int(unsure[row])].as_py()):
            differs = _difference(one, other, text_steps, own)
        yield keys[int(unsure[row])].as_py(), differs


def _places_of(side: Side, keys: pa.ChunkedArray) -> pa.Table:
    rows = pc.index_in(keys, side.places["key"])
    if rows.null_count:
        lacks = counted(rows.null_count, "sample")
        raise damage(side.store, INDEX_FILE, f"the index lacks {lacks} that the ledger lists as kept")
    return side.places.take(rows)


def _contents(store: Store, places: pa.Table) -> np.ndarray:
    """Return a 64-bit hash of each sample's bytes, uint64 (N,). Each tar is opened once and read from front to back."""
    order = pc.sort_indices(places, [("shard", "ascending"), ("offset", "ascending")]).to_numpy()
    hashes = np.zeros(len(places), dtype=np.uint64)
    shards, offsets, sizes = (places[name].to_pylist() for name in ("shard", "offset", "size"))
    for shard, rows in itertools.groupby(order.tolist(), key=shards.__getitem__):
        with store.open(shard) as opened:
            for row in rows:
                hashes[row] = xxhash.xxh3_64_intdigest(read_open(store, shard, opened, offsets[row], sizes[row]))
    return hashes


def _members(store: Store, place: pa.Table) -> dict[str, bytes]:
    """Return the members of one sample: extension -> bytes."""
    line = place.to_pylist()[0]
    data = read_span(store, line["shard"], line["offset"], line["size"])
    with sample_of(store, line["shard"], line["key"]), tarfile.open(fileobj=io.BytesIO(data + bytes(1024))) as tar:
        return {one.name[len(line["key"]) + 1 :]: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]


def _difference(a: dict[str, bytes], b: dict[str, bytes], text_steps: str, own: set[str]) -> str:
    """Return text that says how two samples with the same key differ and which steps caused it, such as "text by language".

    `text_steps` names the steps that may have changed the texts, and `own` has the names of all steps: a field of the JSON with
    such a name is the step's.
    """
    facts_a, facts_b = json.loads(a["json"]), json.loads(b["json"])
    pictures_a, pictures_b = (
        {name: data for name, data in one.items() if name.rpartition(".")[2] in IMAGE_EXTENSIONS} for one in (a, b)
    )
    other = {name for name in {*facts_a, *facts_b} if facts_a.get(name) != facts_b.get(name)}
    found = []
    if pictures_a != pictures_b:
        fetched = _hashes(facts_a) == _hashes(facts_b)
        found.append("image by resize" if fetched else "image by download")
        other -= set(OF_IMAGES)
    if other & set(TEXTS) or a.get("txt") != b.get("txt"):
        found.append(f"text by {text_steps}")
        other -= set(TEXTS)
        other -= {name for name in ALIGNED if _there(facts_a, name) == _there(facts_b, name)}  # only nulls for texts differ
    if "scores" in other:
        scores_a, scores_b = facts_a.get("scores", {}), facts_b.get("scores", {})
        names = {name for name in {*scores_a, *scores_b} if scores_a.get(name) != scores_b.get(name)}
        found.append(f"score by {', '.join(sorted({name.partition('.')[0] for name in names}))}")
        other.remove("scores")
    return " and ".join([*found, *(f"{name} by {name if name in own else 'the source'}" for name in sorted(other))])


def _there(facts: dict[str, Any], name: str) -> list[Any]:
    return [one for one in facts.get(name) or () if one is not None]


def _hashes(facts: dict[str, Any]) -> list[str | None]:
    """Return the SHA-256 of each image as fetched, from the JSON of a sample. The list has None at the positions of texts."""
    return [image and image.get("sha256") for image in facts.get("metadata") or [facts]]


def _steps_of(a: Side, b: Side, column: str) -> str:
    """Return text that names what may have caused different values in `column`: steps, joined by "or".

    These are the steps that rewrite `column`, or ask a generator, and are not the same in both recipes. If there are none,
    return "the source". If a step of a recipe cannot be imported, return "a step".
    """
    try:
        found = [{repr(step): step for step in parse(side.manifest["recipe"]).steps} for side in (a, b)]
    except RecipeError:  # a user's step that cannot be imported here
        return "a step"
    changed = [step for one, other in (found, found[::-1]) for text, step in one.items() if text not in other]
    names = {
        step.name for step in changed if column in {*step.columns_written(), *step.changes} or isinstance(step, AskingStep)
    }
    return " or ".join(sorted(names)) or "the source"


def _names_of_steps(a: Side, b: Side) -> set[str]:
    try:
        return {step.name for side in (a, b) for step in parse(side.manifest["recipe"]).steps}
    except RecipeError:  # a user's step that cannot be imported here
        return set()


def tell(changes: list[Change]) -> str:
    """Return the changes as text, one line each: the number of rows, the outcomes before and after, and some keys."""
    lines = []
    for change in changes:
        more = " ..." if change.rows > len(change.keys) else ""
        lines.append(f"{change.rows:>12,}  {change.before} -> {change.after}   {' '.join(change.keys)}{more}")
    return "\n".join(lines) if lines else "no row differs"
