"""The base class of an export format, and the samples and shards that a format gets.

A format is one file in `vlmdata/exports/` with one frozen dataclass. The name of the file is the name for `--to`, and the
fields of the class are the format's options. `export` calls `write_shard` once for each shard of the dataset, in order, and
`finish` at the end.

An export may be killed at any moment, and the same command resumes it:

* `write_shard` writes the files of one shard, and depends on nothing but this shard and the options. If it is killed, it is
  called again for the same shard, and overwrites what it had written. A shard that has a record is never written again.
* `finish` writes what needs all shards, such as an index or a joined list. It gets the records of all shards, which include
  what `write_shard` returned. It may be killed and called again too, so it must not change or delete its input.

Both write into the draft folder, which becomes the target when it is complete. Neither keeps more than a shard's index rows
and a few samples in memory. The same dataset and options give the same bytes.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import pyarrow as pa

from vlmdata.engine.output.samples_index import sample_of
from vlmdata.engine.output.stored_samples import members, shards
from vlmdata.engine.store.store_protocol import Store
from vlmdata.exporting.draft import Draft, ShardRecord
from vlmdata.images.formats import IMAGE_EXTENSIONS

Kind = Literal["captions", "documents", "conversations"]
KINDS: tuple[Kind, ...] = ("captions", "documents", "conversations")
T = TypeVar("T")
LOADING = 'from datasets import load_dataset\n\nload_dataset("PATH", split="train")'  # for the card
SLICE = 256  # samples whose list of members is in memory at once


class Unsuitable(Exception):
    """Raised for a sample that a format cannot hold. The message completes the sentence "sample KEY is left out: ..."."""


@dataclass(frozen=True)
class Sample:
    """One sample of the dataset, with its members as they are stored."""

    key: str
    members: dict[str, bytes]  # by name, such as "jpg", "0.jpg", "txt", "json"; every sample has "json"
    layout: str  # of the dataset: "captions" or "documents"

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """The parsed JSON of the sample."""
        return json.loads(self.members["json"])

    @property
    def kind(self) -> Kind:
        """The kind of the sample: a conversation is a document with roles."""
        if self.layout == "captions":
            return "captions"
        return "conversations" if self.facts.get("roles") else "documents"

    @property
    def images(self) -> dict[str, bytes]:
        """The image members, by name, in their stored order."""
        return {name: data for name, data in self.members.items() if name.rpartition(".")[2] in IMAGE_EXTENSIONS}


@dataclass(frozen=True)
class Shard:
    """One shard of the dataset, to be written by a format."""

    name: str  # of the tar, such as "00000.tar"
    number: int  # from 0
    count: int  # number of shards of the dataset
    limit: int  # number of samples in a full shard of the dataset; no shard has more
    layout: str  # "captions" or "documents"
    holds: tuple[Kind, ...]  # the kinds of samples that the format holds
    store: Store = field(repr=False)
    table: pa.Table = field(repr=False)  # the shard's rows of the index
    left_out: list[tuple[str, str]] = field(default_factory=list)  # (key, reason) of the samples that the format cannot hold

    def each(self, function: Callable[[Sample], T]) -> Iterator[T]:
        """Yield `function(sample)` for each sample that the format can hold, in stored order.

        A sample of another kind, or one for which `function` raises Unsuitable, is added to `left_out`. Any other error that
        `function` raises for the sample's data becomes a RecipeError, which names the tar and the sample.
        """
        for start in range(0, len(self.table), SLICE):
            for key, found in members(self.store, self.name, self.table.slice(start, SLICE)):
                with sample_of(self.store, self.name, key):
                    sample = Sample(key, found, self.layout)
                    try:
                        if sample.kind not in self.holds:
                            raise Unsuitable(f"it is one of {sample.kind}, and the format holds {' and '.join(self.holds)}")
                        value = function(sample)
                    except Unsuitable as reason:
                        self.left_out.append((key, str(reason)))
                        continue
                yield value


def first_kind(store: Store, layout: str) -> Kind:
    """Return the kind of the first sample of a dataset that has samples."""
    name, table = next(shards(store))
    key, found = next(members(store, name, table.slice(0, 1)))
    with sample_of(store, name, key):
        return Sample(key, found, layout).kind


@dataclass(frozen=True)
class Published:
    """How an export is read, for its card."""

    files: str | None  # pattern of the files that `datasets` and the Hub's viewer read; None if they cannot read this format
    columns: Mapping[str, str] = field(default_factory=dict)  # what each column holds, in Markdown
    loading: str = LOADING  # Python code
    is_webdataset: bool = False  # the files are tars with the members of the dataset's samples


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """An export format. Its fields are its options, and each has a default."""

    holds: ClassVar[tuple[Kind, ...]] = KINDS  # the kinds of samples that the format can hold
    modules: ClassVar[tuple[str, ...]] = ()  # packages of an extra that the format imports
    version: ClassVar[int] = 1  # increase this when the format writes other files, so that no old draft is continued

    def kinds(self) -> tuple[Kind, ...]:
        """Return the kinds of samples that the format holds with these options."""
        return self.holds

    def advice(self, kind: Kind) -> str:
        """Return how the options can make the format hold samples of this kind, as a sentence, or ""."""
        return ""

    def check(self, kind: Kind) -> None:
        """Raise RecipeError if the options do not fit each other, or the kind of the dataset's first sample."""

    def published(self, layout: str) -> Published | None:
        """Return how the exported folder is read from the Hub, or None if it gets no card."""
        return None

    def write_shard(self, shard: Shard, draft: Draft) -> dict[str, Any] | None:
        """Write the samples of a shard to the draft. Returns JSON values for `finish`, or None."""
        raise NotImplementedError

    def finish(self, draft: Draft, records: Iterable[ShardRecord]) -> None:
        """Write what needs all shards. `records` has one record for each shard, in order, and is read from disk."""
