"""Decode images, resize them and re-encode them."""

from dataclasses import dataclass
from typing import ClassVar

from vlmdata.images.budget import MAX_COST, MAX_MEMORY_MB, MAX_PIXELS
from vlmdata.images.resize import ResizeRule
from vlmdata.row import ROW
from vlmdata.step import RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class Resize(ResizeRule, Step):
    """Resize images with img2dataset's modes. An image that cannot be decoded completely is rejected with a reason.

    The engine runs this step together with the preceding `download`. After a change of a parameter, the engine therefore
    fetches the images again.
    """

    id: ClassVar = "vlmdata.steps.resize"
    reads: ClassVar = ("images",)
    writes: ClassVar = {"images": ROW.field("images").type}
    needs: ClassVar = ("web",)
    measured_by: ClassVar = (
        *("mode", "size", "only_if_bigger", "skip_reencode", "format", "quality", "blur_boxes"),
        *("max_pixels", "max_memory_mb", "max_cost"),
    )

    blur_boxes: bool = False  # blur the boxes of the row's images, such as faces in DataComp
    max_pixels: int = MAX_PIXELS  # an image with more is `too_many_pixels`; the next two limits are usually stricter
    max_memory_mb: int = MAX_MEMORY_MB  # estimated from an image's header; an image that needs more is `too_large`
    max_cost: int = MAX_COST  # cost of all images of a row, in units of about 10 ms; later images are `too_costly`

    def check(self) -> None:
        for name in ("max_pixels", "max_memory_mb", "max_cost"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{self.name}.{name} must be at least 1, not {getattr(self, name)}")
