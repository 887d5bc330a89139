"""Multimodal C4 (Zhu et al. 2023) as published: JSON lines, also in zip files."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.readers.find_files import File, find
from vlmdata.readers.json_records import no_json
from vlmdata.readers.lists import named_pieces
from vlmdata.readers.open_file import opened, raw_file
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import bad_record, document, reject, tables
from vlmdata.readers.strings import clean
from vlmdata.step import RecipeError, Source

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zip", ".zip", ".jsonl.zst")


@dataclass(frozen=True, kw_only=True)
class Mmc4(Source):
    """Yield one row for each line. Each sentence is one text, and an image comes before the sentence that MMC4 matched it to.

    Images keep their address for `download`. The sample's JSON keeps the similarity of each image to its sentence. A line
    that is not a document is dropped as `bad_record`.
    """

    id: ClassVar = "vlmdata.sources.mmc4"
    example: ClassVar = "source: {type: mmc4, path: docs_shard_*.jsonl, min_similarity: 0.15}"
    gives: ClassVar = "documents"
    shuffled: ClassVar[bool] = False

    path: Annotated[str | list[str], Doc("MMC4's JSON lines files, or folders or globs of them.")]
    min_similarity: Annotated[
        float,
        Doc(
            "Images with a lower cosine (CLIP ViT-L/14, as published) are left out. MMC4 used 0.15. 0: all images.",
            unit="cosine, 0 to 1",
        ),
    ] = 0.0

    def files(self) -> list[File]:
        return find(self.path, ENDINGS)

    def pieces(self) -> list[dict[str, Any]]:
        return named_pieces(self.files())

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        name = piece["name"] if "name" in piece else os.path.basename(piece["path"])  # plans of earlier versions have no name
        return tables(self._row(line, file, number) for file, number, line in _lines(piece["path"], name))

    def _row(self, line: bytes, file: str, number: int) -> dict[str, Any]:
        try:
            record = json.loads(line)
            sentences = [clean(str(text)) for text in record["text_list"]]
            images = [(_place(image, len(sentences)), image) for image in record["image_info"]]
            url = clean(str(record["url"])) if record.get("url") else None
            kept = [(at, image) for at, image in images if float(image.get("matched_sim") or 0) >= self.min_similarity]
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            text = line[:200].decode("utf-8", "replace")
            fields: dict[str, Any] = {"id": f"bad\n{text}", "extra": json_object({"record": text})}
            return bad_record(file, _problem(error), line=number, **fields)
        parts: list[dict[str, Any] | str] = []
        for number in range(len(sentences) + 1):
            parts += [{"url": clean(str(image.get("raw_url") or ""))} for at, image in kept if at == number]
            parts += sentences[number : number + 1]
        extra = json_object({"matched_sim": [image.get("matched_sim") for _, image in sorted(kept, key=lambda pair: pair[0])]})
        row = document((part for part in parts if part), url=url, extra=extra)
        return row if row["images"] else reject(row, "empty_document")


def _place(image: dict[str, Any], sentences: int) -> int:
    return min(max(int(image.get("matched_text_index", sentences)), 0), sentences)


def _problem(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        return no_json(error)
    if isinstance(error, KeyError):
        return f"the record has no field {error}"
    return "the record is JSON but not a document of MMC4"


def _lines(path: str, name: str) -> Iterator[tuple[str, int, bytes]]:
    """Yield (name, line number, bytes) of each line that is not blank. In a zip file, the member's name is added to `name`."""
    with contextlib.ExitStack() as stack:
        if path.lower().endswith(".zip"):
            try:
                stream = stack.enter_context(raw_file(path))
                if not stream.seek(0, os.SEEK_END):
                    return
                archive = stack.enter_context(zipfile.ZipFile(stream))
                for inside in sorted(archive.namelist()):
                    with archive.open(inside) as member:
                        yield from _numbered(f"{name}/{inside}", member)
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                raise RecipeError(f"{path} cannot be read: {error}") from None
            return
        yield from _numbered(name, stack.enter_context(opened(path)))


def _numbered(name: str, lines: Iterable[bytes]) -> Iterator[tuple[str, int, bytes]]:
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if text.strip():
            yield name, number, text
