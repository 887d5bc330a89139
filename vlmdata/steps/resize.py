"""Decode images, resize them and re-encode them."""

from dataclasses import dataclass
from typing import ClassVar

from vlmdata.images.budget import MAX_COST, MAX_MEMORY_MB, MAX_PIXELS
from vlmdata.images.resize import ResizeRule
from vlmdata.row import ROW
from vlmdata.step import RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class Resize(ResizeRule, Step):
    """Resize with img2dataset's modes. An image that cannot be decoded completely is rejected with the reason.

    The engine runs it together with the preceding `download`. Changing these parameters fetches the images again.
    """

    id: ClassVar = "vlmdata.steps.resize"
    reads: ClassVar = ("images",)
    writes: ClassVar = {"images": ROW.field("images").type}
    needs: ClassVar = ("web",)
    measured_by: ClassVar = (
        *("mode", "size", "only_if_bigger", "skip_reencode", "format", "quality", "blur_boxes"),
        *("max_pixels", "max_memory_mb", "max_cost"),
    )

    blur_boxes: bool = False  # blur the row's boxes: faces, as DataComp does
    max_pixels: int = MAX_PIXELS  # by the header: `too_many_pixels`. The two limits below are usually stricter
    max_memory_mb: int = MAX_MEMORY_MB  # to decode one image, estimated from the header: `too_large`
    max_cost: int = MAX_COST  # of all images of a row together, in units of about 10 ms; images past it are `too_costly`

    def check(self) -> None:
        for name in ("max_pixels", "max_memory_mb", "max_cost"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{self.name}.{name} = {getattr(self, name)}: must be at least 1")
