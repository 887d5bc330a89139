"""Reject paragraphs that a web site repeats on several pages."""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import xxhash

from vlmdata.html.obelics import END_OF_DOCUMENT
from vlmdata.parameters import Doc
from vlmdata.row import alive, drop_texts, flatten
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class ParagraphRepeats(Step):
    """Reject every copy of a paragraph that occurs verbatim at least `min_count` times in the pages of one host."""

    id: ClassVar = "vlmdata.steps.paragraph_repeats"
    example: ClassVar = "- paragraph_repeats: {min_count: 3}"
    reads: ClassVar = ("url", "texts.text")
    changes: ClassVar = ("texts",)
    sees_all: ClassVar = True
    limits: ClassVar = {"repeated_on_host": ">= min_count"}

    min_count: Annotated[
        int,
        Doc(
            "A paragraph that occurs at least this often in the pages of one host is rejected everywhere there. "
            "OBELICS's end-of-document mark is exempt.",
            unit="occurrences",
            source="OBELICS, step 18",
        ),
    ] = 3

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "texts")
        hosts = [_host(url) for url in rows["url"].to_pylist()]
        is_alive = flat.alive() & alive(rows)[flat.parents]
        keys = [
            xxhash.xxh3_64_intdigest(f"{hosts[row]}\n{text}".encode("utf-8", "surrogatepass"))
            if here and text != END_OF_DOCUMENT and hosts[row]
            else None
            for text, row, here in zip(flat.field("text").to_pylist(), flat.parents, is_alive, strict=True)
        ]
        counts = Counter(key for key in keys if key is not None)
        often = np.array([np.nan if key is None else counts[key] for key in keys], np.float64)
        return drop_texts(
            rows, often >= self.min_count, self.name, reason="repeated_on_host", value=often, threshold=self.min_count
        )


def _host(url: str | None) -> str:
    try:
        return urlsplit(url or "").netloc.lower()
    except ValueError:
        return ""
