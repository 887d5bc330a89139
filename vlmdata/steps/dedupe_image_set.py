"""Keep one of the documents that have the same set of images."""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from vlmdata.row import alive, flatten
from vlmdata.similarity.latest import keep_latest
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class DedupeImageSet(Step):
    """Keep the latest of the documents that have the same set of image addresses, in any order. Source: OBELICS, step 20.

    The latest document has the greatest WARC file name and, among equal names, the greatest date.
    """

    id: ClassVar = "vlmdata.steps.dedupe_image_set"
    example: ClassVar = "- dedupe_image_set"
    reads: ClassVar = ("images.url", "images.sha256", "extra")
    changes: ClassVar = ("cluster",)
    sees_all: ClassVar = True

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "images")
        sets: list[set[str]] = [set() for _ in range(len(rows))]
        fields = zip(flat.field("url").to_pylist(), flat.field("sha256").to_pylist(), flat.parents, flat.alive(), strict=True)
        for url, sha256, row, is_alive in fields:
            if is_alive:
                inline = not url or url.startswith("data:")
                sets[row].add((sha256 or f"{row}") if inline else url)
        groups = ["\n".join(sorted(urls)) if urls and here else None for urls, here in zip(sets, alive(rows), strict=True)]
        return keep_latest(rows, groups, self.name, "same_images")
