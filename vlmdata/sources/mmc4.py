"""Multimodal C4 (Zhu et al. 2023) as it is published: JSON lines, also in zip files."""

from __future__ import annotations

import contextlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from vlmdata.intake.find import File, find
from vlmdata.intake.opened import opened, raw_file
from vlmdata.intake.pairs import json_object
from vlmdata.intake.rows import document, reject, tables
from vlmdata.intake.strings import clean
from vlmdata.step import RecipeError, Source

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zip", ".zip", ".jsonl.zst")


@dataclass(frozen=True, kw_only=True)
class Mmc4(Source):
    """One row for each line; sentences stay apart, each image stands before the sentence that it was matched to.

    Images keep their address for `download`, and their similarity to that sentence in the row's `extra`. A line that is no
    document is dropped as `bad_record`.
    """

    gives: ClassVar = "documents"
    shuffled: ClassVar[bool] = False

    path: str | list[str]
    min_similarity: float = 0.0  # cosine of CLIP ViT-L/14 as published; an image below it is left out: MMC4 itself took 0.15

    def files(self) -> list[File]:
        return find(self.path, ENDINGS)

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return tables(self._row(line) for line in _lines(piece["path"]))

    def _row(self, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
            sentences = [clean(str(text)) for text in record["text_list"]]
            images = [(_place(image, len(sentences)), image) for image in record["image_info"]]
            url = clean(str(record["url"])) if record.get("url") else None
            kept = [(at, image) for at, image in images if float(image.get("matched_sim") or 0) >= self.min_similarity]
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            text = line[:200].decode("utf-8", "replace")
            return reject({"id": f"bad\n{text}", "extra": json_object({"record": text})}, "bad_record")
        parts: list[dict[str, Any] | str] = []
        for number in range(len(sentences) + 1):
            parts += [{"url": clean(str(image.get("raw_url") or ""))} for at, image in kept if at == number]
            parts += sentences[number : number + 1]
        extra = json_object({"matched_sim": [image.get("matched_sim") for _, image in sorted(kept, key=lambda pair: pair[0])]})
        row = document((part for part in parts if part), url=url, extra=extra)
        return row if row["images"] else reject(row, "empty_document")


def _place(image: dict[str, Any], sentences: int) -> int:
    return min(max(int(image.get("matched_text_index", sentences)), 0), sentences)


def _lines(path: str) -> Iterator[bytes]:
    with contextlib.ExitStack() as stack:
        if path.lower().endswith(".zip"):
            try:
                archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(raw_file(path))))
                for name in sorted(archive.namelist()):
                    with archive.open(name) as member:
                        yield from (line for line in member if line.strip())
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise RecipeError(f"{path}: cannot be read: {error}") from None
            return
        yield from (line for line in stack.enter_context(opened(path)) if line.strip())
