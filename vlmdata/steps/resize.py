"""Decode images, resize them and re-encode them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from vlmdata.images.budget import MAX_COST, MAX_MEMORY_MB, MAX_PIXELS
from vlmdata.images.resize import ResizeRule
from vlmdata.parameters import Doc
from vlmdata.row import ROW
from vlmdata.step import RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class Resize(ResizeRule, Step):
    """Resize images with img2dataset's modes. An image that cannot be decoded completely is rejected with a reason.

    The engine runs this step together with the preceding `download`. After a change of a parameter, the engine therefore
    fetches the images again.
    """

    id: ClassVar = "vlmdata.steps.resize"
    example: ClassVar = "- resize: {mode: keep_ratio, size: 384, only_if_bigger: true}"
    reads: ClassVar = ("images",)
    fetched: ClassVar = ("blob",)
    writes: ClassVar = {"images": ROW.field("images").type}
    needs: ClassVar = ("web",)
    measured_by: ClassVar = (
        *("mode", "size", "only_if_bigger", "skip_reencode", "format", "quality", "blur_boxes"),
        *("max_pixels", "max_memory_mb", "max_cost"),
    )
    limits: ClassVar = {"too_large": "> max_memory_mb", "too_costly": "> max_cost", "too_many_pixels": "> max_pixels"}

    blur_boxes: Annotated[bool, Doc("Whether to blur the boxes of the row's images, such as faces in DataComp.")] = False
    max_pixels: Annotated[
        int,
        Doc(
            "An image with more is dropped as `too_many_pixels`. The next two limits are usually stricter.",
            unit="pixels",
            source="vlmdata's choice",
        ),
    ] = MAX_PIXELS
    max_memory_mb: Annotated[
        int,
        Doc(
            "An image that needs more memory, estimated from its header, is dropped as `too_large`.",
            unit="MB (1,000,000 bytes)",
            source="vlmdata's choice",
        ),
    ] = MAX_MEMORY_MB
    max_cost: Annotated[
        int,
        Doc(
            "Greatest cost of all images of a row. Later images are dropped as `too_costly`.",
            unit="units of about 10 ms",
            source="vlmdata's choice",
        ),
    ] = MAX_COST

    def check(self) -> None:
        for name in ("max_pixels", "max_memory_mb", "max_cost"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{self.name}.{name} must be at least 1, not {getattr(self, name)}")

    def check_steps(self, before: Sequence[Step]) -> None:
        for step in before:
            if step.marks_pictures:
                raise RecipeError(
                    f"{self.name} would make the marks that {step.name} has drawn thinner, or cut them off. Put {self.name} "
                    f"before {step.name}"
                )
