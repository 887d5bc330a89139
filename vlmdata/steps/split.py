"""Assign every row to a split, such as train, val or test, and keep similar rows in one split."""

import json
from dataclasses import dataclass, field
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import xxhash

from vlmdata.parameters import Doc
from vlmdata.row import alive, drop_rows, flatten, set_column
from vlmdata.similarity.clusters import components
from vlmdata.similarity.cosine import pairs_above, quantise
from vlmdata.similarity.embeddings import embeddings_in
from vlmdata.similarity.hamming import edges_within
from vlmdata.similarity.lsh import similar_text_edges
from vlmdata.similarity.minhash import grams_of
from vlmdata.similarity.pigeonhole_blocks import MAX_DISTANCE
from vlmdata.similarity.runs import Ids
from vlmdata.step import RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class Split(Step):
    """Write the split of each remaining row into `extra` as `split`. With `only`, reject the rows of all other splits.

    A row's split comes from a hash of the smallest key in its cluster. A cluster holds the rows that are connected, directly or
    through other rows. Two rows are connected if they share image bytes or a text, or if two of their images have hashes within
    `distance` bits. If `jaccard` is set, two rows are also connected if their texts have at least this Jaccard similarity. If
    `cosine` is set, two rows are also connected if two of their images have a cosine above `cosine`. With `by_domain`, two rows
    are also connected if their pages (or their images, in rows without a page) have the same host. The shares apply to
    clusters, so the shares of rows are only approximate. New rows change the split of old rows only if they join two clusters.
    """

    id: ClassVar = "vlmdata.steps.split"
    example: ClassVar = "- split: {shares: {train: 0.98, val: 0.01, test: 0.01}, by_domain: true}"
    changes: ClassVar = ("extra",)
    fetched: ClassVar = ("phash",)
    sees_all: ClassVar = True
    limits: ClassVar = {"split_*": "not in only"}

    shares: Annotated[
        dict[str, float],
        Doc(
            "Share of the clusters in each split. The keys are the names of the splits; the shares add up to 1.",
            unit="share of clusters, 0 to 1",
            source="vlmdata's choice",
        ),
    ] = field(default_factory=lambda: {"train": 0.98, "val": 0.01, "test": 0.01})
    only: Annotated[str, Doc("Keep only the rows of this split. Empty: all.")] = ""
    distance: Annotated[
        int,
        Doc(
            "Two rows are connected if hashes of their images differ in at most this many bits.",
            unit="bits of 64",
            source="vlmdata's choice: larger than for deduplication, because rows in different splits must not be similar",
        ),
    ] = 8
    jaccard: Annotated[
        float,
        Doc(
            "Two rows are connected if the 5-grams of their words have at least this similarity. 0: only identical "
            "texts connect.",
            unit="Jaccard similarity, 0 to 1",
        ),
    ] = 0.0
    cosine: Annotated[
        float,
        Doc(
            "Two rows are connected if two of their images have a cosine above this. 0: embeddings are not compared.",
            unit="cosine, 0 to 1",
        ),
    ] = 0.0
    embedding: Annotated[str, Doc("Column of the embeddings.")] = "clip_score.embedding"
    by_domain: Annotated[bool, Doc("Whether rows of the same host are connected.")] = False
    seed: Annotated[int, Doc("Seed of the hash that assigns a split to a cluster.", unit="any whole number")] = 0

    def check(self) -> None:
        if not self.shares or min(self.shares.values()) < 0 or abs(sum(self.shares.values()) - 1) > 1e-9:
            raise RecipeError(f"{self.name}.shares must be 0 or more and add up to 1, not {self.shares}")
        if self.only and self.only not in self.shares:
            raise RecipeError(f"{self.name}.only must be one of {', '.join(self.shares)}, not {self.only}")
        if not 0 <= self.distance <= MAX_DISTANCE:
            raise RecipeError(f"{self.name}.distance must lie in 0..{MAX_DISTANCE} (of 64 bits), not {self.distance}")
        if not 0 <= self.cosine < 1 or not 0 <= self.jaccard <= 1:
            raise RecipeError(f"{self.name}: cosine must lie in [0, 1) and jaccard in [0, 1]")

    def columns_read(self) -> tuple[str, ...]:
        fields = ("phash", "sha256", *(("url",) if self.by_domain else ()))
        own = (self.embedding,) if self.cosine else ()
        return (*(f"images.{field}" for field in fields), "texts.text", "url", "extra", *own)

    def decide(self, rows: pa.Table) -> pa.Table:
        is_alive = alive(rows)
        labels = components(len(rows), self._edges(rows, is_alive))
        keys = rows["key"].to_pylist()
        least: dict[int, str] = {}
        for key, label in zip(keys, labels.tolist(), strict=True):
            least[label] = min(key, least.get(label, key))
        sides = [self.side(least[label]) for label in labels.tolist()]
        extras = [
            json.dumps({**json.loads(extra or "{}"), "split": side}, ensure_ascii=False) if here else extra
            for extra, side, here in zip(rows["extra"].to_pylist(), sides, is_alive.tolist(), strict=True)
        ]
        rows = set_column(rows, "extra", pa.array(extras, pa.string()))
        if not self.only:
            return rows
        others = np.array([side != self.only for side in sides], bool)
        return drop_rows(rows, others, self.name, reason=np.array([f"split_{side}" for side in sides], object))

    def side(self, key: str) -> str:
        """Return the split of a key. The hash of the key, as a number in [0, 1), is compared with the cumulative shares."""
        place = xxhash.xxh3_64_intdigest(key.encode(), self.seed) / 2**64
        total = 0.0
        for side, share in self.shares.items():
            total += share
            if place < total:
                return side
        return next(side for side, share in reversed(self.shares.items()) if share > 0)

    def _edges(self, rows: pa.Table, is_alive: np.ndarray) -> list[Ids]:
        images, texts = flatten(rows, "images"), flatten(rows, "texts")
        of_image = np.flatnonzero(images.alive() & is_alive[images.parents])
        of_text = np.flatnonzero(texts.alive() & is_alive[texts.parents])
        hashes = images.field("phash")
        has = of_image[np.asarray(hashes.is_valid())[of_image]]
        found = list(edges_within(hashes.take(pa.array(has)).to_numpy(zero_copy_only=False).astype(np.uint64), self.distance))
        edges = [images.parents[has][pairs] for pairs in found]
        edges.append(same(images.field("sha256").take(pa.array(of_image)).to_pylist(), images.parents[of_image]))
        edges.append(same(texts.field("text").take(pa.array(of_text)).to_pylist(), texts.parents[of_text]))
        if self.jaccard:
            edges.append(near_texts(rows, self.jaccard))
        if self.cosine:
            has, vectors = embeddings_in(rows, self.embedding)
            near = pairs_above(quantise(vectors), self.cosine, threads=2)
            edges += [pairs[is_alive[pairs].all(axis=1)] for pairs in (images.parents[has][chunk] for chunk in near)]
        if self.by_domain:
            pages = np.array([url is not None for url in rows["url"].to_pylist()], bool)
            of_image, of_page = of_image[~pages[images.parents[of_image]]], np.flatnonzero(is_alive & pages)
            urls = [*images.field("url").take(pa.array(of_image)).to_pylist(), *rows["url"].take(pa.array(of_page)).to_pylist()]
            edges.append(same([domain(url) for url in urls], np.concatenate([images.parents[of_image], of_page])))
        return edges


def same(values: list[str | None], owners: Ids) -> Ids:
    """Return pairs (P, 2) that connect the owners of equal values. Nulls are skipped.

    The first owner of a value is paired with each later owner.
    """
    first: dict[str, int] = {}
    known = [(value, owner) for value, owner in zip(values, owners.tolist(), strict=True) if value is not None]
    pairs = [(first.setdefault(value, owner), owner) for value, owner in known]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def near_texts(rows: pa.Table, jaccard: float) -> Ids:
    """Return pairs (P, 2) of remaining rows whose joined texts have a Jaccard similarity of at least `jaccard`."""
    flat = flatten(rows, "texts")
    parts: dict[int, list[str]] = {row: [] for row in np.flatnonzero(alive(rows)).tolist()}
    for text, row, here in zip(flat.field("text").to_pylist(), flat.parents.tolist(), flat.alive().tolist(), strict=True):
        if here and row in parts:
            parts[row].append(text)
    edges = similar_text_edges(["\n".join(words) for words in parts.values()], jaccard, grams_of(5))
    pairs: Ids = np.fromiter(parts, np.int64, len(parts))[edges]
    return pairs


def domain(url: str | None) -> str | None:
    """Return the host of an address in lower case without `www.`, or None if it has no host.

    The registered domain is not returned, because finding it needs the Public Suffix List.
    """
    try:
        host = urlsplit(url or "").hostname
    except ValueError:
        return None
    return host.removeprefix("www.") if host else None
