"""Keep one document for each page address."""

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from vlmdata.row import alive
from vlmdata.similarity.latest import keep_latest
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class DedupePageUrl(Step):
    """Keep the latest of the documents with the same page address. Source: OBELICS, step 17.

    The latest document has the greatest WARC file name and, among equal names, the greatest date.
    """

    id: ClassVar = "vlmdata.steps.dedupe_page_url"
    example: ClassVar = "- dedupe_page_url"
    reads: ClassVar = ("url", "extra")
    changes: ClassVar = ("cluster",)
    sees_all: ClassVar = True

    def decide(self, rows: pa.Table) -> pa.Table:
        urls = [url if here else None for url, here in zip(rows["url"].to_pylist(), alive(rows), strict=True)]
        return keep_latest(rows, urls, self.name, "same_page_address")
