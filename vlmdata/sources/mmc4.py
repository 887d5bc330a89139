"""Multimodal C4 (Zhu et al. 2023) as published: JSON lines, also in zip files, and tars with images in base64."""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from vlmdata.fields import renamed
from vlmdata.loader.index.grouping import SampleMembers
from vlmdata.loader.index.tar import Read
from vlmdata.parameters import Doc
from vlmdata.readers.find_files import File, find
from vlmdata.readers.json_records import no_json
from vlmdata.readers.lists import named_pieces
from vlmdata.readers.open_file import opened, raw_file
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import bad_record, document, place, reject, tables, with_place
from vlmdata.readers.source_images import from_base64, image_named
from vlmdata.readers.strings import clean
from vlmdata.readers.tar_samples import MAX_IMAGE, BadSample, member_bytes, tar_rows
from vlmdata.step import RecipeError, Source

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zip", ".zip", ".jsonl.zst")
TAR = ".tar"
MMC4 = frozenset(("url", "text_list", "image_info", "similarity_matrix"))  # fields that are not columns of the row
BROKEN = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
)  # for another shape


@dataclass(frozen=True, kw_only=True)
class Mmc4(Source):
    """Yield one row for each line. Each sentence is one text, and an image comes before the sentence that MMC4 matched it to.

    Images keep their address for `download`. With `images`, an image is the file of its `image_name` in this folder. Images
    in `image_base64` are read too, also from tars of such JSON, as OpenFlamingo uses them; tars are read if `path` has no
    JSON lines. The sample's JSON keeps the similarity of each image to its sentence, and the record's other fields. A line
    that is not a document is dropped as `bad_record`.
    """

    id: ClassVar = "vlmdata.sources.mmc4"
    example: ClassVar = "source: {type: mmc4, path: docs_shard_*.jsonl, min_similarity: 0.15}"
    gives: ClassVar = "documents"
    shuffled: ClassVar[bool] = False
    images_in: ClassVar = "images"

    path: Annotated[str | list[str], Doc("MMC4's JSON lines files, or folders or globs of them.")]
    min_similarity: Annotated[
        float,
        Doc(
            "Images with a lower cosine (CLIP ViT-L/14, as published) are left out. MMC4 used 0.15. 0: all images.",
            unit="cosine, 0 to 1",
        ),
    ] = 0.0
    images: Annotated[str, Doc("Folder with the files of `image_name`. Empty: images are fetched from their addresses.")] = ""

    def check(self) -> None:
        super().check()
        if self.images:
            find(self.images, ("",), parameter="source.images")

    def files(self) -> list[File]:
        try:
            return find(self.path, ENDINGS)
        except RecipeError:
            with contextlib.suppress(RecipeError):
                return find(self.path, (TAR,))
            raise

    def pieces(self) -> list[dict[str, Any]]:
        return named_pieces(self.files())

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        name = piece["name"] if "name" in piece else os.path.basename(piece["path"])  # plans of earlier versions have no name
        if piece["path"].lower().endswith(TAR):
            return tables(tar_rows(piece["path"], name, self._sample))
        return tables(self._row(line, file, number) for file, number, line in _lines(piece["path"], name))

    def _sample(self, sample: SampleMembers, blob: str | None, read: Read) -> dict[str, Any]:
        members = dict(sample.members)
        if "json" not in members:
            raise BadSample("it has no JSON")
        record = member_bytes(read, members["json"], MAX_IMAGE)
        try:
            return self._document(record)
        except BROKEN as error:
            raise BadSample(_problem(error)) from None

    def _row(self, line: bytes, file: str, number: int) -> dict[str, Any]:
        try:
            return with_place(self._document(line), place(file, line=number))
        except BROKEN as error:
            text = line[:200].decode("utf-8", "replace")
            fields: dict[str, Any] = {"id": f"bad\n{text}", "extra": json_object({"record": text})}
            return bad_record(file, _problem(error), line=number, **fields)

    def _document(self, line: bytes) -> dict[str, Any]:
        """Return the row of a record. Raises one of BROKEN if it is not a document of MMC4."""
        record = json.loads(line)
        sentences = [clean(str(text)) for text in record["text_list"]]
        images = [(_place(image, len(sentences)), image) for image in record["image_info"]]
        url = clean(str(record["url"])) if record.get("url") else None
        least = self.min_similarity or -math.inf
        kept = [(at, image) for at, image in images if float(image.get("matched_sim") or 0) >= least]
        parts: list[dict[str, Any] | str] = []
        for number in range(len(sentences) + 1):
            parts += [self._image(image) for at, image in kept if at == number]
            parts += sentences[number : number + 1]
        own = renamed({name: value for name, value in record.items() if name not in MMC4}, ("matched_sim",))
        own["matched_sim"] = [image.get("matched_sim") for _, image in sorted(kept, key=lambda pair: pair[0])]
        row = document((part for part in parts if part), url=url, extra=clean(json_object(own)))
        if not row["images"]:
            return reject(row, "empty_document")
        found = [image for image in row["images"] if image]
        return reject(row, found[0].get("reason") if found and all(image.get("reason") for image in found) else None)

    def _image(self, image: dict[str, Any]) -> dict[str, Any]:
        address = clean(str(image.get("raw_url") or ""))
        text = image.get("image_base64")
        if isinstance(text, str) and text:
            if text[:2] in ("b'", 'b"'):  # OpenFlamingo's script wrote Python's form of bytes
                text = text[2:-1]
            return {"url": address or None, **from_base64(text.encode("utf-8", "replace"))}
        if self.images:
            found = image_named(image.get("image_name"), self.images)
            return {**found, "url": address} if address else found
        return {"url": address}


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
