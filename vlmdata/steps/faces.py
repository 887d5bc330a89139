"""Count faces, reject images with many or large faces, and blur faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.images.face_boxes import Face, as_faces, blur_faces, largest_share, pixels_within
from vlmdata.images.facts import ImageError
from vlmdata.models.mtcnn_files import HOW, is_published, read_weights, weights_digest
from vlmdata.parameters import Doc
from vlmdata.row import ROW, Flat, aligned_items, drop_images, drop_rows, flatten, set_column, with_facts
from vlmdata.step import RecipeError, Step, StepContext

if TYPE_CHECKING:
    from vlmdata.models.mtcnn import Mtcnn

UNSEEN = "not_examined"
PIXELS = "images.boxes"  # boxes of the source, in pixels


@dataclass(frozen=True, kw_only=True)
class Faces(Step):
    """Store the number of faces in each image and their boxes, reject images by them, and blur faces with `blur: true`.

    The detector is MTCNN with the published weights of facenet-pytorch 2.6.0, or any step before this one that measures boxes
    (`boxes`). The column `boxes` holds a list for each image: x0, y0, x1 and y1 of each face, as fractions of the image's width
    and height, and its probability. An image that cannot be decoded is rejected as `not_examined`.

    With `blur: true`, images with faces are stored again with blurred faces, so later steps, shards and exports have only
    these. Put the step directly after `resize`, because only steps behind it see the blurred images. See [faces](faces.md).
    """

    id: ClassVar = "vlmdata.steps.faces"
    example: ClassVar = "- faces: {weights: facenet_pytorch-2.6.0-py3-none-any.whl, blur: true}"
    packages: ClassVar = (
        "torch",
        "torchvision",
    )
    reads: ClassVar = ("images",)
    fetched: ClassVar = ("blob",)
    writes: ClassVar = {
        "": pa.list_(pa.int32()),
        "boxes": pa.list_(pa.list_(pa.list_(pa.float64()))),
        "images": ROW.field("images").type,
    }
    measured_by: ClassVar = ("min_face", "side")
    needs: ClassVar = ("model", "gpu")
    is_private: ClassVar = True

    weights: Annotated[
        str, Doc(f"The wheel of facenet-pytorch 2.6.0, or a folder with its pnet.pt, rnet.pt and onet.pt. {HOW}.")
    ] = ""
    boxes: Annotated[
        str,
        Doc(
            "Column with boxes to use in place of MTCNN: `boxes` of another step (`found.boxes`), or images.boxes, which holds "
            "boxes of the source such as DataComp's face_bboxes. A box has four fractions and perhaps a probability."
        ),
    ] = ""
    min_probability: Annotated[
        float,
        Doc(
            "A less probable box is no face. MTCNN stores none below 0.7.",
            unit="probability, 0 to 1",
            source="vlmdata's choice",
        ),
    ] = 0.8
    min_face: Annotated[
        int, Doc("Side of the smallest face that MTCNN searches for.", unit="pixels, at least 12", source="facenet-pytorch")
    ] = 20
    side: Annotated[
        int,
        Doc(
            "MTCNN gets an image whose longer side is longer scaled down to it.",
            unit="pixels, 12 to 2048",
            source="vlmdata's choice",
        ),
    ] = 640
    max_faces: Annotated[int | None, Doc("An image with more faces is rejected. null: no limit.", unit="faces")] = None
    max_share: Annotated[
        float | None,
        Doc("An image with a larger face is rejected. null: no limit.", unit="share of the image's area, 0 to 1"),
    ] = None
    rejects: Annotated[Literal["image", "row"], Doc("Whether such an image rejects only itself or its whole row.")] = "image"
    blur: Annotated[bool, Doc("Whether to blur the faces and to store the images again.")] = False
    quality: Annotated[int, Doc("Quality of blurred JPEG and WebP.", unit="1 to 100", source="img2dataset")] = 95

    def check(self) -> None:
        if bool(self.weights) == bool(self.boxes):
            raise RecipeError(f"{self.name}.weights: give either weights or boxes. {HOW}")
        for name, low, high in (("min_probability", 0, 1), ("max_share", 0, 1), ("side", 12, 2048), ("quality", 1, 100)):
            if getattr(self, name) is not None and not low <= getattr(self, name) <= high:
                raise RecipeError(f"{self.name}.{name} must lie in [{low}, {high}], not {getattr(self, name)}")
        if self.min_face < 12:
            raise RecipeError(f"{self.name}.min_face must be at least 12, the input of the first network, not {self.min_face}")
        if self.max_faces is not None and self.max_faces < 0:
            raise RecipeError(f"{self.name}.max_faces must be at least 0, not {self.max_faces}")
        if self.weights and not is_published(self._files()):
            self._load()  # imports torch, which takes seconds, only for other weights

    def columns_read(self) -> tuple[str, ...]:
        return (*self.reads, self.boxes) if self.boxes else self.reads

    def columns_written(self) -> Mapping[str, pa.DataType]:
        return {name: kind for name, kind in self.writes.items() if self.blur or name != "images"}

    def fields_fetched(self) -> tuple[str, ...]:
        pixels = ("width", "height") if self.boxes == PIXELS else ()
        return ("blob", *pixels) if self.blur or not self.boxes else pixels

    def needed(self) -> tuple[str, ...]:
        return () if self.boxes else self.needs

    def packages_needed(self) -> tuple[str, ...]:
        return () if self.boxes else self.packages

    def identity(self) -> str:
        found = "" if self.boxes else weights_digest(self._files())
        return f"{found} blur {self.min_probability} {self.quality}" if self.blur else found

    def _files(self) -> dict[str, bytes]:
        try:
            return read_weights(self.weights)
        except RecipeError as error:
            raise RecipeError(f"{self.name}.weights: {error}") from None

    def _load(self) -> Mtcnn:
        from vlmdata.models.mtcnn import Mtcnn

        files = self._files()
        try:
            return Mtcnn(files)
        except RecipeError as error:
            raise RecipeError(f"{self.name}.weights: {error}") from None

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        images = flatten(rows, "images")
        given = self._given(rows, images)
        places = list(zip(*(images.field(name).to_pylist() for name in ("blob", "offset", "size")), strict=True))
        found: list[list[Face] | None] = [None] * len(places)
        changed: dict[int, dict[str, Any]] = {}
        outcomes: dict[str, tuple[list[Face] | None, dict[str, Any]]] = {}  # rows may share an image
        for at in np.flatnonzero(images.alive()).tolist():
            key = repr((places[at], given[at]))
            if key not in outcomes:
                outcomes[key] = self._outcome(places[at], given[at], context)
            found[at], changed[at] = outcomes[key]
        columns = self._columns(images, found)
        return columns | ({"images": with_facts(images, changed)} if self.blur else {})

    def _outcome(
        self, place: tuple[Any, Any, Any], given: list[Face] | None, context: StepContext
    ) -> tuple[list[Face] | None, dict[str, Any]]:
        """Return the faces in an image, or None if they are not known, and the new facts of the image if it was blurred."""
        needs_bytes = self.blur or not self.boxes
        if needs_bytes and place[0] is None:
            return None, {}
        try:
            body = context.image_bytes(*place) if needs_bytes else b""
            faces = given if self.boxes else self._detect(body, context)
            done = blur_faces(body, self._probable(faces), self.quality) if self.blur and faces is not None else None
        except ImageError:
            return None, {}
        if done is None:
            return faces, {}
        blob, offset = context.store_image(done.data)
        facts = {name: getattr(done, name) for name in ("format", "width", "height", "phash")}
        return faces, {"data": None, "blob": blob, "offset": offset, "size": len(done.data), **facts}

    def _detect(self, body: bytes, context: StepContext) -> list[Face] | None:
        detector: Mtcnn = context.kept(f"mtcnn {self.weights}", self._load)
        pixels = pixels_within(body, self.side)
        return as_faces(detector.faces(pixels, self.min_face).tolist(), pixels.shape[1], pixels.shape[0])

    def _given(self, rows: pa.Table, images: Flat) -> list[list[Face] | None]:
        """Return the faces that the column `boxes` states for each position of `images`, or None where they are not known."""
        if not self.boxes:
            return [None] * len(images.items)
        if self.boxes == PIXELS:
            fields = (images.field(name).to_pylist() for name in ("boxes", "width", "height"))
            return [
                as_faces(boxes or [], wide, high) if wide and high else None for boxes, wide, high in zip(*fields, strict=True)
            ]
        kind = rows[self.boxes].type
        if not (_is_list(kind) and _is_list(kind.value_type) and _is_list(kind.value_type.value_type)):
            raise RecipeError(f"{self.name}.boxes: the column {self.boxes} holds {kind}, not a list of boxes for each image")
        return [None if boxes is None else as_faces(boxes) for boxes in aligned_items(rows, self.boxes, "images").to_pylist()]

    def _probable(self, faces: list[Face]) -> list[Face]:
        return [face for face in faces if face[4] >= self.min_probability]

    def _columns(self, images: Flat, found: list[list[Face] | None]) -> dict[str, pa.Array]:
        counts = [None if faces is None else len(self._probable(faces)) for faces in found]
        arrays = {"": pa.array(counts, pa.int32()), "boxes": pa.array(found, pa.list_(pa.list_(pa.float64())))}
        return {name: images.rebuild(array) for name, array in arrays.items()}

    def decide(self, rows: pa.Table) -> pa.Table:
        images = flatten(rows, "images")
        found: list[list[Face] | None] = aligned_items(rows, self.column("boxes"), "images").to_pylist()
        rows = set_column(rows, self.name, self._columns(images, found)[""])  # with the `min_probability` of this run
        probable = [self._probable(faces or []) for faces in found]
        rows = drop_images(rows, np.array([faces is None for faces in found], bool), self.name, reason=UNSEEN)
        values = {
            "max_faces": [float(len(faces)) for faces in probable],
            "max_share": [largest_share(faces) for faces in probable],
        }
        for reason, numbers in values.items():
            limit, value = getattr(self, reason), np.array(numbers, float)
            if limit is None:
                continue
            bad = value > limit
            if self.rejects == "image":
                rows = drop_images(rows, bad, self.name, reason=reason, value=value, threshold=limit)
                continue
            bad &= images.alive()
            worst = np.full(len(rows), np.nan)
            np.fmax.at(worst, images.parents[bad], value[bad])
            rows = drop_rows(rows, ~np.isnan(worst), self.name, reason=reason, value=worst, threshold=limit)
        return rows


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
