"""Draws pages and parts of pages with PDFium, and maps its coordinates to those of the displayed page."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmdata.extras import required
from vlmdata.images.encode import encode
from vlmdata.pdf.geometry import Box

USER = "source pdf"
LARGEST_SCALE = 600 / 72  # pixels per point, at which the smallest figure is drawn


@dataclass(frozen=True)
class Drawing:
    """How pages and figures become pictures."""

    dpi: float
    max_side: int  # pixels
    format: str  # png or jpeg


class Page:
    """An open page. `width` and `height` are those of the displayed page in points: cut at the CropBox and rotated."""

    def __init__(self, raw: Any):
        self.raw = raw
        self.width, self.height = raw.get_size()
        if min(self.width, self.height) <= 0:
            raise ValueError("no part of the page is visible: its CropBox lies outside of its MediaBox")
        self.box: Box = (0.0, 0.0, self.width, self.height)
        self.to_display = self._display()

    def picture(self, drawing: Drawing) -> tuple[bytes, int, int]:
        """Return the page as the bytes of an image file, with its width and height in pixels."""
        scale = min(drawing.dpi / 72, drawing.max_side / max(self.width, self.height))
        return self._drawn(scale, self.box, drawing.format)

    def part(self, box: Box, pixels: tuple[int, int] | None, drawing: Drawing) -> tuple[bytes, int, int]:
        """Return a part of the page as `picture` does. `pixels` is the size of the raster image that it shows, if any.

        A raster image keeps its own resolution within `max_side`. Other parts are drawn at `dpi`.
        """
        width, height = box[2] - box[0], box[3] - box[1]
        scale = drawing.dpi / 72 if pixels is None else max(pixels[0] / width, pixels[1] / height)
        scale = min(scale, drawing.max_side / max(width, height), LARGEST_SCALE)
        return self._drawn(scale, box, drawing.format)

    def _drawn(self, scale: float, box: Box, format: str) -> tuple[bytes, int, int]:
        crop = (box[0], self.height - box[3], self.width - box[2], box[1])
        bitmap = self.raw.render(scale=scale, crop=crop, rev_byteorder=True, may_draw_forms=True)
        pixels = np.ascontiguousarray(bitmap.to_numpy()[:, :, :3])
        bitmap.close()
        return encode(pixels, format, 90), pixels.shape[1], pixels.shape[0]

    def _display(self) -> Callable[[float, float], tuple[float, float]]:
        """Return the function that maps a point of the PDF's coordinates to the displayed page."""
        (ox, oy), (rx, ry), (dx, dy) = (self._corner(x, y) for x, y in ((0, 0), (1000, 0), (0, 1000)))
        a, b, c, d = rx - ox, dx - ox, ry - oy, dy - oy
        det = a * d - b * c
        width, height = self.width, self.height

        def display(x: float, y: float) -> tuple[float, float]:
            u, v = x - ox, y - oy
            return (d * u - b * v) / det * width, (a * v - c * u) / det * height

        return display

    def _corner(self, x: int, y: int) -> tuple[float, float]:
        pdfium = required("pypdfium2.raw", USER)
        px, py = ctypes.c_double(), ctypes.c_double()
        pdfium.FPDF_DeviceToPage(self.raw, 0, 0, 1000, 1000, 0, x, y, px, py)
        return px.value, py.value

    def displayed(self, left: float, bottom: float, right: float, top: float) -> Box:
        """Return a box of the PDF's coordinates, in which y points up, as a box of the displayed page."""
        x0, y0 = self.to_display(left, bottom)
        x1, y1 = self.to_display(right, top)
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
