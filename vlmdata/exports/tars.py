"""Export as plain WebDataset tars, which webdataset's own writer makes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import webdataset

from vlmdata.engine.output.sample_counts import COUNTS, encode_counts
from vlmdata.exporting.draft import Draft, ShardRecord
from vlmdata.exporting.exporter import Exporter, Published, Sample, Shard


@dataclass(frozen=True, kw_only=True)
class Tars(Exporter):
    """Write one tar for each shard, with the members of its samples, and sizes.json with the number of samples of each tar.

    The bytes depend only on the samples.
    """

    version: ClassVar = 2

    def published(self, layout: str) -> Published:
        return Published("*.tar", is_webdataset=True)

    def write_shard(self, shard: Shard, draft: Draft) -> None:
        with webdataset.TarWriter(str(draft.files / Path(shard.name).name), encoder=False, mtime=0) as tar:

            def write(sample: Sample) -> None:
                tar.write({"__key__": sample.key, **sample.members})

            for _ in shard.each(write):
                pass

    def finish(self, draft: Draft, records: Iterable[ShardRecord]) -> None:
        counts = {Path(record.name).name: record.samples for record in records}
        (draft.files / COUNTS).write_bytes(encode_counts(counts))
