"""Measure how well an image matches its text by CLIPScore, with any model and weights of open_clip."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.models.clip_names import check_model, weights_identity
from vlmdata.parameters import Doc
from vlmdata.row import aligned, drop_images, flatten
from vlmdata.scores import as_stored
from vlmdata.step import RecipeError, Step, StepContext
from vlmdata.text.compared_texts import compared_texts

PLACE = ("blob", "offset", "size")  # the fields of an image that say where its bytes are


@dataclass(frozen=True, kw_only=True)
class ClipScore(Step):
    """Reject an image if its highest cosine with a text of its row is below `min_score`.

    In a caption pair, the image is compared with the caption and its alternatives. In a document, it is compared with its alt
    text, its own caption and the nearest texts. The column `text` stores the kind of the best text, such as `alt`. Cosines
    are rounded to 4 digits before they are stored, so that the effect of a later threshold does not depend on the last bit.
    """

    id: ClassVar = "vlmdata.steps.clip_score"
    example: ClassVar = "- clip_score: {model: ViT-B-32, pretrained: laion2b_s34b_b79k, min_score: 0.28}"
    packages: ClassVar = (
        "open_clip",
        "torch",
        "torchvision",
    )
    reads: ClassVar = ("images", "texts")
    fetched: ClassVar = ("blob",)
    writes: ClassVar = {"": pa.list_(pa.float32()), "text": pa.list_(pa.string()), "embedding": pa.list_(pa.binary())}
    version: ClassVar = 2  # since version 2, images are also compared with the captions of figures
    measured_by: ClassVar = ("precision", "around", "embeddings")
    needs: ClassVar = ("model", "gpu")

    model: Annotated[str, Doc("Model of open_clip, local-dir:FOLDER or hf-hub:NAME.", source="vlmdata's choice")] = "ViT-B-32"
    pretrained: Annotated[
        str, Doc("Tag of open_clip or a file of weights. Unused with local-dir and hf-hub.", source="vlmdata's choice")
    ] = "datacomp_xl_s13b_b90k"
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Doc("Number format of the model. auto: bf16 on a GPU and on CPUs with AMX or AVX-512 BF16."),
    ] = "auto"
    compiled: Annotated[
        Literal["auto", "yes", "no"], Doc("Whether torch.compile is used, which takes a minute. auto: on a GPU.")
    ] = "auto"
    min_score: Annotated[
        float,
        Doc(
            "An image is rejected if its highest cosine with a text of its row is lower.",
            unit="cosine, -1 to 1",
            source="LAION-2B with ViT-B/32; LAION-400M uses 0.30, DataComp 0.25",
        ),
    ] = 0.28
    around: Annotated[
        int,
        Doc(
            "Number of texts on each side of a document's image that are compared with it.",
            unit="texts",
            source="vlmdata's choice",
        ),
    ] = 1
    embeddings: Annotated[
        bool, Doc("Whether to store the images' unit embeddings, fp16, for steps such as dedupe_semantic and classifier_head.")
    ] = False
    batch: Annotated[
        int, Doc("Images per batch. 0: 256 on a GPU, 16 on a CPU. The stored digits do not depend on it.", unit="images")
    ] = 0

    def check(self) -> None:
        if not -1 <= self.min_score <= 1:
            raise RecipeError(f"{self.name}.min_score must lie in [-1, 1], not {self.min_score}")
        check_model(self.model, self.pretrained, self.name)

    def clip_weights(self) -> tuple[tuple[str, str], ...]:
        return ((self.model, self.pretrained),)

    def identity(self) -> str:
        return weights_identity(self.model, self.pretrained)

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        from vlmdata.models.clip import clip_of

        clip = clip_of(context, self.model, self.pretrained, self.precision, self.compiled)
        context.note(clip.facts)
        images = flatten(rows, "images")
        positions = np.flatnonzero(images.alive())
        texts, owners, kinds = compared_texts(rows, positions, self.around)
        pictures, read = self.pictures(rows, positions, context)
        units = clip.embed_images(pictures, self.batch, read)
        cosines = clip.cosines(units, texts, owners, self.batch)
        best: list[float | None] = [None] * len(images.items)
        which: list[str | None] = [None] * len(images.items)
        for owner, kind, cosine in zip(owners, kinds, cosines, strict=True):
            at = positions[owner]
            if np.isnan(cosine):  # a broken image has no score and stays
                continue
            if best[at] is None or cosine > best[at]:
                best[at], which[at] = cosine, kind
        kept: list[bytes | None] = [None] * len(images.items)
        if self.embeddings:
            for at, unit in zip(positions, units.astype("<f2"), strict=True):
                kept[at] = None if np.isnan(unit[0]) else unit.tobytes()
        arrays = {
            "": pa.array(best, pa.float32()),
            "text": pa.array(which, pa.string()),
            "embedding": pa.array(kept, pa.binary()),
        }
        return {name: images.rebuild(array) for name, array in arrays.items()}

    def pictures(
        self, rows: pa.Table, positions: np.ndarray, context: StepContext
    ) -> tuple[list[Hashable], Callable[[Any], bytes]]:
        """Return the pictures to compare, and a function that returns the encoded bytes of each.

        There is one picture for each position in the flattened `images`. Equal values stand for equal pictures, which steps
        with the same preprocessing decode once.
        """
        images = flatten(rows, "images")
        places = zip(*(images.field(name).take(pa.array(positions)).to_pylist() for name in PLACE), strict=True)
        return list(places), lambda place: context.image_bytes(*place)

    def decide(self, rows: pa.Table) -> pa.Table:
        value = aligned(rows, self.name, "images")
        bad = value < as_stored(self.min_score, rows, self.name)
        return drop_images(rows, bad, self.name, reason="min_score", value=value, threshold=self.min_score)
