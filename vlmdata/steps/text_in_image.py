"""Measure how much text images show, and reject images of text and images that repeat their caption as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.images.header import read_header
from vlmdata.images.resize import fitted, scale_to
from vlmdata.images.text_regions import covered_share, packed
from vlmdata.models.ocr_files import ocr_files
from vlmdata.models.weights_identity import identity
from vlmdata.parameters import Doc
from vlmdata.row import Flat, aligned, aligned_items, drop_images, flatten
from vlmdata.scores import as_stored
from vlmdata.step import RecipeError, Step, StepContext
from vlmdata.text.word_overlap import shared_words

if TYPE_CHECKING:
    from vlmdata.models.text_reader import FoundText, TextReader

NOT_DECODABLE = "not_decodable"
READ_SIDE = 1_536  # longer side in pixels of the image that is read; more pixels make no line of a usual picture clearer
DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class TextInImage(Step):
    """Reject an image if text covers more than `max_area` of it, or if it shows more than `max_overlap` of its caption's words.

    PP-OCR finds the text, with the models in the wheel of rapidocr; nothing is downloaded. The step stores the share of the
    area that text covers, the number of regions of text (`boxes`), and the regions themselves for `masked_clip_score`.

    With `recognise: true`, the text is read and stored too. `overlap` is the share of the caption's distinct words that the
    image shows, and `in_caption` the share of the image's words that the caption holds. Case, accents and punctuation do not
    count, words of fewer than three characters are left out, and in scripts without spaces each letter is a word. An image's
    captions are its alt text, the caption of its figure, and in a row with one image and one text that text without its
    alternatives; the highest share counts. The image of a longer document is not compared with the paragraphs around it.

    With the default limits, the step only measures. An image that cannot be decoded within the default limits of memory and
    cost is rejected as `not_decodable`. The step needs the packages of `vlmdata[ocr]`.
    """

    id: ClassVar = "vlmdata.steps.text_in_image"
    example: ClassVar = "- text_in_image: {recognise: true, max_area: 0.2, max_overlap: 0.5}"
    packages: ClassVar = ("onnxruntime", "rapidocr")
    reads: ClassVar = ("images",)
    fetched: ClassVar = ("blob",)
    writes: ClassVar = {
        "": pa.list_(pa.float32()),
        "boxes": pa.list_(pa.int32()),
        "regions": pa.list_(pa.binary()),
        "text": pa.list_(pa.string()),
        "overlap": pa.list_(pa.float32()),
        "in_caption": pa.list_(pa.float32()),
        "failure": pa.list_(pa.string()),
    }
    measured_by: ClassVar = ("recognise", "side")
    needs: ClassVar = ("model",)

    max_area: Annotated[
        float,
        Doc(
            "An image is rejected if text covers a greater share of its area. 1: no limit. 0: no text at all.",
            unit="share, 0 to 1",
            source="vlmdata's choice",
        ),
    ] = 1.0
    max_overlap: Annotated[
        float,
        Doc(
            "An image is rejected if it shows a greater share of its caption's words. Needs `recognise: true`. 1: no limit.",
            unit="share, 0 to 1",
            source="vlmdata's choice",
        ),
    ] = 1.0
    recognise: Annotated[bool, Doc("Whether to read the text, which takes time for each line.")] = False
    side: Annotated[
        int,
        Doc(
            "Text is searched in the image with its longer side scaled down to this. More finds smaller text, and takes time.",
            unit="pixels, 64 to 4096",
            source="T-MARS, 512",
        ),
    ] = 512

    def columns_read(self) -> tuple[str, ...]:
        return (*self.reads, "texts.text") if self.recognise else self.reads

    def check(self) -> None:
        for name in ("max_area", "max_overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{self.name}.{name} must lie in [0, 1], such as 0.2, not {getattr(self, name)}")
        if not 64 <= self.side <= 4096:
            raise RecipeError(f"{self.name}.side must lie in [64, 4096], such as 512, not {self.side}")
        if self.max_overlap < 1 and not self.recognise:
            raise RecipeError(f"{self.name}.max_overlap compares words that are read. Add recognise: true")
        ocr_files(self.name)

    def identity(self) -> str:
        return " ".join(identity(str(path)) for path in ocr_files(self.name).values())

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        images = flatten(rows, "images")
        captions = _captions(rows, images) if self.recognise else []
        values: dict[str, list[object]] = {name: [None] * len(images.items) for name in self.writes}
        for at, found, size in self._found(images, context):
            if found is None:
                values["failure"][at] = NOT_DECODABLE
                continue
            values[""][at] = round(covered_share(found.regions, *size), DIGITS)
            values["boxes"][at] = len(found.regions)
            values["regions"][at] = packed(found.regions)
            if self.recognise:
                text = "\n".join(found.lines)
                values["text"][at] = text
                values["overlap"][at] = _highest(shared_words(caption, text) for caption in captions[at])
                values["in_caption"][at] = _highest(shared_words(text, caption) for caption in captions[at])
        return {name: images.rebuild(pa.array(values[name], kind.value_type)) for name, kind in self.writes.items()}

    def _found(self, images: Flat, context: StepContext) -> Iterator[tuple[int, FoundText | None, tuple[int, int]]]:
        """Yield for each image that is not rejected its position, its text, and its upright (width, height) in pixels.

        The text is None if the image cannot be decoded. An image without stored bytes is left out.
        """
        places = [images.field(name).to_pylist() for name in ("blob", "offset", "size")]
        for at in np.flatnonzero(images.alive()):
            blob, offset, size = (place[at] for place in places)
            if blob is None:
                continue
            reader = context.kept(f"text reader {self.side}", self._load)
            context.note(reader.facts)
            try:
                pixels = _pixels(context.image_bytes(blob, offset, size), max(self.side, READ_SIDE * self.recognise))
            except ImageError:
                yield int(at), None, (0, 0)
                continue
            yield int(at), reader.find(pixels, read=self.recognise), (pixels.shape[1], pixels.shape[0])

    def _load(self) -> TextReader:
        from vlmdata.models.text_reader import TextReader

        return TextReader(self.side, self.name)

    def decide(self, rows: pa.Table) -> pa.Table:
        is_failed = np.asarray(aligned_items(rows, self.column("failure"), "images").is_valid())
        rows = drop_images(rows, is_failed, self.name, reason=NOT_DECODABLE)
        for reason, column, limit in (
            ("max_area", self.name, self.max_area),
            ("max_overlap", self.column("overlap"), self.max_overlap),
        ):
            value = aligned(rows, column, "images")
            bad = value > as_stored(limit, rows, column)
            rows = drop_images(rows, bad, self.name, reason=reason, value=value, threshold=limit)
        return rows


def _pixels(data: bytes, side: int) -> np.ndarray:
    """Return an upright image as (H, W, 3) uint8 sRGB, scaled down to a longer side of at most `side`. Raises ImageError."""
    header = read_header(data)
    target = fitted(*header.upright_size, side)
    return scale_to(decode(data, target=target, beside=3 * target[0] * target[1], header=header).pixels, target)


def _captions(rows: pa.Table, images: Flat) -> list[list[str]]:
    """Return the captions of each image: its alt text, its figure's caption, and the text of a row of one image and text."""
    texts = flatten(rows, "texts")
    words, kept = texts.field("text").to_pylist(), texts.alive()
    only: list[str | None] = [None] * len(rows)
    for row in np.flatnonzero(np.bincount(texts.parents[kept], minlength=len(rows)) == 1):
        only[row] = words[texts.first(kept)[row]]
    is_single = np.bincount(images.parents[images.alive()], minlength=len(rows)) == 1
    own = zip(images.field("alt").to_pylist(), images.field("caption").to_pylist(), images.parents, strict=True)
    return [[one for one in (alt, caption, only[row] if is_single[row] else None) if one] for alt, caption, row in own]


def _highest(shares: Iterator[float | None]) -> float | None:
    """Return the highest share, rounded, or None if there is none."""
    found = [share for share in shares if share is not None]
    return round(max(found), DIGITS) if found else None
