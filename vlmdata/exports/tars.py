"""Export as plain WebDataset tars, which webdataset's own writer makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import webdataset

from vlmdata.exporting.draft import Draft
from vlmdata.exporting.exporter import Exporter, Sample, Shard


@dataclass(frozen=True, kw_only=True)
class Tars(Exporter):
    """Write one tar for each shard, with the members of its samples. The bytes depend only on the samples."""

    def write_shard(self, shard: Shard, draft: Draft) -> None:
        with webdataset.TarWriter(str(draft.files / Path(shard.name).name), encoder=False, mtime=0) as tar:

            def write(sample: Sample) -> None:
                tar.write({"__key__": sample.key, **sample.members})

            for _ in shard.each(write):
                pass
