"""Decode images, resize them and write them anew."""

from dataclasses import dataclass
from typing import ClassVar

from vlmdata.images.resize import ResizeRule
from vlmdata.row import ROW
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class Resize(ResizeRule, Step):
    """Resize with img2dataset's modes. An image that cannot be decoded, whole, is rejected with the reason.

    The engine does it together with the `download` before it. After a change of these parameters images are fetched again.
    """

    reads: ClassVar = ("images",)
    writes: ClassVar = {"images": ROW.field("images").type}
    needs: ClassVar = ("web",)
    measured_by: ClassVar = ("mode", "size", "only_if_bigger", "skip_reencode", "format", "quality", "max_pixels", "blur_boxes")

    blur_boxes: bool = False  # blur what lies in the row's boxes: faces, as DataComp does
    max_pixels: int = 100_000_000  # of the header, before anything is decoded: 300 MB of pixels at the most
