"""Reject documents by the user's word lists: words in texts and in addresses."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import drop_rows, flatten, numbers
from vlmdata.step import Step, StepContext
from vlmdata.text.listed_words import listed_in_runs, unspaced_words
from vlmdata.text.obelics_metrics import words_of
from vlmdata.text.word_lists import fingerprint_of, read_words
from vlmdata.text.words import count_words, has_unspaced


@dataclass(frozen=True, kw_only=True)
class NsfwWords(Step):
    """Reject a row if too many of its words are in `words`, or if a page or image address contains a word of `in_address`.

    vlmdata contains no word list. Without `words`, only addresses are checked. In scripts without spaces, such as Chinese,
    Japanese and Thai, listed words match anywhere in the text, and two letters count as a word (`vlmdata/text/words.py`).
    """

    id: ClassVar = "vlmdata.steps.nsfw_words"
    example: ClassVar = "- nsfw_words: {words: flagged.txt, max_share: 0.01}"
    version: ClassVar = 2  # since version 2, text in scripts without spaces is split into words

    reads: ClassVar = ("url", "images", "texts")
    is_private: ClassVar = True
    writes: ClassVar = {"share": pa.float32(), "count": pa.float32()}

    words: Annotated[str, Doc("File with one word per line, or a JSON list. Empty: only addresses are checked.")] = ""
    max_share: Annotated[
        float,
        Doc(
            "A row is rejected if a greater share of its words is in `words`.",
            unit="share of words, 0 to 1",
            source="OBELICS's threshold for flagged words",
        ),
    ] = 0.01
    max_count: Annotated[
        int, Doc("A row of any length is rejected if it has more words of `words`. 0: no limit.", unit="words")
    ] = 0
    in_address: Annotated[
        list[str], Doc("Words that are rejected anywhere in the address of a page or an image.", source="vlmdata's choice")
    ] = field(default_factory=lambda: ["porn", "xxx", "hentai"])

    def check(self) -> None:
        read_words(self.words, self.name)

    def identity(self) -> str:
        return fingerprint_of(read_words(self.words, self.name))

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        listed = read_words(self.words, self.name)
        if listed is None:
            return {"share": pa.nulls(len(rows), pa.float32()), "count": pa.nulls(len(rows), pa.float32())}
        flat = flatten(rows, "texts")
        unspaced = unspaced_words(listed)
        total, count = np.zeros(len(rows)), np.zeros(len(rows))
        for text, row, is_alive in zip(flat.field("text").to_pylist(), flat.parents, flat.alive(), strict=True):
            if is_alive and text:
                words = words_of(text)
                total[row] += count_words(text) if has_unspaced(text) else len(words)
                count[row] += sum(word in listed for word in words if not has_unspaced(word))
                count[row] += sum(1 for _ in listed_in_runs(text, *unspaced))
        share = np.divide(count, total, out=np.zeros(len(rows)), where=total > 0)
        return {"share": pa.array(share, pa.float32()), "count": pa.array(count, pa.float32())}

    def decide(self, rows: pa.Table) -> pa.Table:
        rows = drop_rows(rows, self._named(rows), self.name, reason="address")
        share = numbers(rows[self.column("share")].combine_chunks())
        rows = drop_rows(
            rows, share > np.float32(self.max_share), self.name, reason="words", value=share, threshold=self.max_share
        )
        if not self.max_count:
            return rows
        count = numbers(rows[self.column("count")].combine_chunks())
        return drop_rows(rows, count > self.max_count, self.name, reason="words", value=count, threshold=self.max_count)

    def _named(self, rows: pa.Table) -> np.ndarray:
        listed = [word.lower() for word in self.in_address]
        flat = flatten(rows, "images")
        named = np.array([_holds(url, listed) for url in rows["url"].to_pylist()], bool)
        for url, row in zip(flat.field("url").to_pylist(), flat.parents, strict=True):
            named[row] |= _holds(url, listed)
        return named


def _holds(url: str | None, words: list[str]) -> bool:
    return bool(url) and not url.startswith("data:") and any(word in url.lower() for word in words)  # type: ignore[union-attr]
