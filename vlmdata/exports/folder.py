"""Export as plain files."""

from __future__ import annotations

from dataclasses import dataclass

from vlmdata.exporting.draft import Draft
from vlmdata.exporting.exporter import Exporter, Sample, Shard


@dataclass(frozen=True, kw_only=True)
class Folder(Exporter):
    """Write each member to its own file, `ab/abcd….jpg`. The folder's name is the first two characters of the key."""

    def write_shard(self, shard: Shard, draft: Draft) -> None:
        def write(sample: Sample) -> None:
            for name, data in sample.members.items():
                draft.write(f"{sample.key[:2]}/{sample.key}.{name}", data)

        for _ in shard.each(write):
            pass
