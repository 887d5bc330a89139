"""Fetch the images of a row from the web, politely and within limits."""

from dataclasses import dataclass
from typing import ClassVar

from vlmdata.row import ROW
from vlmdata.step import Step
from vlmdata.web.options import WebOptions


@dataclass(frozen=True, kw_only=True)
class Download(WebOptions, Step):
    """Fetch every image that has an address and no bytes yet. What cannot be had is an outcome of the row, with its reason.

    The engine does it together with the `resize` that follows, so that no original is written to disk.
    """

    reads: ClassVar = ("images",)
    writes: ClassVar = {"images": ROW.field("images").type}
    needs: ClassVar = ("web",)
