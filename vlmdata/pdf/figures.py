"""Figures of a page: raster images, and drawings made of paths, as regions of the displayed page.

Pieces of one picture (strips, tiles, a picture under its labels) are one region. A region is drawn as the page shows it, so
PDFium applies masks, clips, CMYK and rotation, and labels on a picture stay on it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vlmdata.extras import required
from vlmdata.pdf.captions import CAPTION
from vlmdata.pdf.geometry import Box, area, clusters, common, grown, has_center_in, shared, union
from vlmdata.pdf.glyphs import Line
from vlmdata.pdf.rendering import USER, Page

MAX_OBJECTS = 50_000  # of a page that are looked at
MAX_FORMS = 8  # nested form objects
MAX_PIXELS = 500_000_000  # of a raster image, as its dictionary states; a page with a larger one is not drawn
TOUCHING, NEAR = 2.0, 14.0  # points between the pieces of a picture, and between the paths of a drawing
LABEL = 8.0  # points between a drawing and a label of at most MOST_LABEL words, such as that of an axis
MOST_LABEL = 4
MIN_SIDE = 36.0  # points, half an inch; smaller pictures are bullets, logos and rules
MIN_SEGMENTS = 16  # lines and curves of a drawing; a frame has about five
BACKGROUND = 0.8  # share of the page: a picture or path that covers more lies behind the text
MOST_WORDS = 0.15  # share of a drawing's area that words cover; a ruled table or a coloured box with text has more
RULE, LONG = 2.5, 0.6  # points, and share of the page's side: thinner and longer paths are rules, such as those of a page head

Matrix = tuple[float, float, float, float, float, float]


class TooManyPixels(ValueError):
    """A raster image of more than MAX_PIXELS pixels."""


@dataclass
class Figure:
    """A region of a page. `pixels` is the width and height of its raster image if there is exactly one, else None."""

    box: Box
    pixels: tuple[int, int] | None


@dataclass(frozen=True)
class Drawn:
    """An object on a page: a raster image, if `pixels` is set, or a path of some segments."""

    box: Box
    pixels: tuple[int, int] | None
    segments: int = 0


def drawn_objects(page: Page) -> list[Drawn]:
    """Return the raster images and paths of a page, also those in forms. Raises TooManyPixels."""
    pdfium = required("pypdfium2.raw", USER)
    left = [MAX_OBJECTS]
    return list(_objects(pdfium, page, page.raw.raw, pdfium.FPDFPage_CountObjects, pdfium.FPDFPage_GetObject, [], left))


def _objects(
    pdfium: Any, page: Page, parent: Any, count: Any, item: Any, matrices: list[Matrix], left: list[int]
) -> Iterator[Drawn]:
    for number in range(max(count(parent), 0)):
        left[0] -= 1
        if left[0] < 0:
            return
        one = item(parent, number)
        kind = pdfium.FPDFPageObj_GetType(one)
        if kind == pdfium.FPDF_PAGEOBJ_FORM and len(matrices) < MAX_FORMS:
            matrix = pdfium.FS_MATRIX()
            pdfium.FPDFPageObj_GetMatrix(one, matrix)
            own = matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f
            inner = pdfium.FPDFFormObj_CountObjects, pdfium.FPDFFormObj_GetObject
            yield from _objects(pdfium, page, one, *inner, [own, *matrices], left)
        if kind not in (pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_PATH):
            continue
        box = _box(pdfium, page, one, matrices)
        if box is None:
            continue
        if kind == pdfium.FPDF_PAGEOBJ_IMAGE:
            yield Drawn(box, _pixels(pdfium, one))
        else:
            yield Drawn(box, None, pdfium.FPDFPath_CountSegments(one))


def _pixels(pdfium: Any, image: Any) -> tuple[int, int]:
    width, height = ctypes.c_uint(), ctypes.c_uint()
    pdfium.FPDFImageObj_GetImagePixelSize(image, width, height)
    if width.value * height.value > MAX_PIXELS:
        raise TooManyPixels(f"an image on the page has {width.value} x {height.value} pixels, more than {MAX_PIXELS:,}")
    return width.value, height.value


def _box(pdfium: Any, page: Page, one: Any, matrices: Sequence[Matrix]) -> Box | None:
    """Return the visible part of an object's box on the displayed page, or None if nothing of it is visible."""
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    if not pdfium.FPDFPageObj_GetBounds(one, left, bottom, right, top):
        return None
    corners = [(x, y) for x in (left.value, right.value) for y in (bottom.value, top.value)]
    for a, b, c, d, e, f in matrices:
        corners = [(a * x + c * y + e, b * x + d * y + f) for x, y in corners]
    shown = [page.to_display(x, y) for x, y in corners]
    box = union((x, y, x, y) for x, y in shown)
    whole = common(box, page.box)
    return whole if whole[2] >= whole[0] and whole[3] >= whole[1] else None


def figures_of(page: Page, objects: Sequence[Drawn], lines: Sequence[Line]) -> list[Figure]:
    """Return the figures of a page. A picture that covers the page is a figure only if the page has no text."""
    background = BACKGROUND * area(page.box)
    images = [one for one in objects if one.pixels and (area(one.box) < background or not lines)]
    paths = [one for one in objects if not one.pixels and not _is_rule(one.box, page) and area(one.box) < background]
    found = [union(images[number].box for number in group) for group in clusters([one.box for one in images], TOUCHING)]
    found = [box for box in found if _is_large(box)]
    words = [word.box for line in lines for word in line.words]
    for group in clusters([one.box for one in paths], NEAR):
        box = union(paths[number].box for number in group)
        if sum(paths[number].segments for number in group) >= MIN_SEGMENTS and _is_large(box) and not _holds_text(box, words):
            found.append(box)
    merged = [union(found[number] for number in group) for group in clusters(found, 0.0)]
    whole = [_with_labels(box, page, lines, is_drawing=_single(box, images) is None) for box in merged]
    whole = [union(whole[number] for number in group) for group in clusters(whole, 0.0)]
    return [Figure(box, _single(box, images)) for box in sorted(whole)]


def _is_rule(box: Box, page: Page) -> bool:
    width, height = box[2] - box[0], box[3] - box[1]
    return (height < RULE and width > LONG * page.width) or (width < RULE and height > LONG * page.height)


def _is_large(box: Box) -> bool:
    return min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE


def _holds_text(box: Box, words: Sequence[Box]) -> bool:
    return sum(area(word) for word in words if has_center_in(word, box)) > MOST_WORDS * area(box)


def _with_labels(box: Box, page: Page, lines: Sequence[Line], *, is_drawing: bool) -> Box:
    """Return a figure's box with the labels that reach over its edge, and those beside a drawing."""
    inside = [line.box for line in lines if shared(line.box, box) > 0.3 and area(line.box) < 0.1 * area(box)]
    near = grown(box, LABEL)
    if is_drawing:
        short = (line for line in lines if len(line.words) <= MOST_LABEL and not CAPTION.match(line.text))
        inside += [line.box for line in short if shared(line.box, near) > 0.1]
    return common(grown(union([box, *inside]), 1.0), page.box)


def _single(box: Box, images: Sequence[Drawn]) -> tuple[int, int] | None:
    inside = [one for one in images if shared(one.box, box) > 0.5]
    return inside[0].pixels if len(inside) == 1 else None
