"""Measure how well an image matches its text by a model with an image-text matching head, such as BLIP."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.generation.captions import is_pair
from vlmdata.generation.units import caption_units, score_columns, without_alternatives
from vlmdata.models.model_folder import folder_of, folder_or_name, model_identity
from vlmdata.parameters import Doc
from vlmdata.row import aligned, alive, drop_images
from vlmdata.scores import as_stored
from vlmdata.step import RecipeError, Step, StepContext

if TYPE_CHECKING:
    from vlmdata.models.image_text_matcher import ImageTextMatcher

TYPES = ("blip", "blip-2")
DIGITS = 4  # to which scores are rounded, so that the effect of a later threshold does not depend on the last bit


@dataclass(frozen=True, kw_only=True)
class ItmScore(Step):
    """Store the probability that the image of a caption pair matches its text, and reject or remove what is too low.

    Source: BLIP's CapFilt, Li et al. 2022, which filters captions of the web and of models. Unlike CLIP, the head reads image
    and text together. The score of the text is stored for the image, as clip_score stores its own, and those of alternatives in
    `itm_score.alternatives`; the highest one is stored for the image if its text has no score. Rows that are not a pair of one
    image and at most one text have no score and stay, as do images that cannot be decoded. A text that is longer than the
    model's positions is cut. Each text of an image is a pass through the whole model. See [judging](judging.md).
    """

    id: ClassVar = "vlmdata.steps.itm_score"
    example: ClassVar = "- itm_score: {model: Salesforce/blip-itm-base-coco, min_score: 0.5, min_alternative: 0.5}"
    packages: ClassVar = ("torch", "torchvision", "transformers")
    reads: ClassVar = ("images", "texts", "roles")
    fetched: ClassVar = ("blob",)
    writes: ClassVar = {"": pa.list_(pa.float32()), "alternatives": pa.list_(pa.list_(pa.float32()))}
    measured_by: ClassVar = ("origins",)
    needs: ClassVar = ("model", "gpu")

    model: Annotated[
        str,
        Doc("Folder, or name on the Hugging Face Hub, of a BlipForImageTextRetrieval or Blip2ForImageTextRetrieval."),
    ]
    origins: Annotated[
        list[str],
        Doc(
            "The texts that are scored: `raw` for those of the source, and names or labels of steps for the captions that they "
            "wrote. Empty: all."
        ),
    ] = field(default_factory=list)
    min_score: Annotated[
        float | None,
        Doc("An image whose score is lower is rejected. null: no limit.", unit="probability, 0 to 1"),
    ] = None
    min_alternative: Annotated[
        float | None,
        Doc("An alternative of the text with a lower score is removed. null: no limit.", unit="probability, 0 to 1"),
    ] = None
    batch: Annotated[int, Doc("Pairs per batch.", unit="pairs", source="vlmdata's choice")] = 16

    def columns_read(self) -> tuple[str, ...]:
        return (*self.reads, *(("texts.origins",) if self.origins else ()))

    def check(self) -> None:
        for name in ("min_score", "min_alternative"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise RecipeError(f"{self.name}.{name} must lie in [0, 1], not {value}")
        if self.batch < 1:
            raise RecipeError(f"{self.name}.batch must be at least 1, not {self.batch}")
        if "" in self.origins:
            raise RecipeError(f"{self.name}.origins has an empty name. Write raw for the texts of the source")
        try:
            folder = folder_or_name(self.model)
        except RecipeError as error:
            raise RecipeError(f"{self.name}.{error}") from None
        if folder is None:
            return
        kind = _model_type(folder, self.name)
        if kind not in TYPES:
            raise RecipeError(f"{self.name}.model: {folder} is a model of type {kind}, not {' or '.join(TYPES)}")

    def check_rows(self, rows: pa.Table) -> None:
        if len(rows) and not is_pair(rows).any():
            raise RecipeError(
                f"{self.name} scores rows with one image and at most one text, and none of the source's first "
                f"{len(rows):,} rows is one"
            )

    def identity(self) -> str:
        return model_identity(self.model)

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        matcher: ImageTextMatcher = context.kept(f"matcher {self.model}", self._load)
        context.note(matcher.facts)
        pairs: list[tuple[str, Callable[[], bytes], str]] = []
        places: list[tuple[int, tuple[int, int]]] = []
        for number, (row, yes) in enumerate(zip(rows.select(["images", "texts"]).to_pylist(), is_pair(rows), strict=True)):
            for unit in caption_units(row, self.origins) if yes else ():
                if unit.images:
                    image = row["images"][unit.images[0]]
                    pairs.append((str(number), _reader(context, image), unit.text))
                    places.append((number, (unit.position, unit.alternative)))
        scores: list[dict[tuple[int, int], float]] = [{} for _ in range(len(rows))]
        for (number, place), value in zip(places, matcher.probabilities(pairs, self.batch), strict=True):
            if not np.isnan(value):
                scores[number][place] = round(float(value), DIGITS)
        own, others = score_columns(rows, scores, "images")
        return {"": own, "alternatives": others}

    def _load(self) -> ImageTextMatcher:
        from vlmdata.models.image_text_matcher import ImageTextMatcher

        return ImageTextMatcher(str(folder_of(self.model) or self.model))

    def decide(self, rows: pa.Table) -> pa.Table:
        if self.min_alternative is not None:
            least = np.float32(self.min_alternative)
            lists = rows[self.column("alternatives")].to_pylist()
            low = [_below(found, least) if is_alive else set() for found, is_alive in zip(lists, alive(rows), strict=True)]
            rows = without_alternatives(rows, low)
        if self.min_score is None:
            return rows
        value = aligned(rows, self.name, "images")
        bad = value < as_stored(self.min_score, rows, self.name)
        return drop_images(rows, bad, self.name, reason="min_score", value=value, threshold=self.min_score)


def _below(found: list[list[float | None] | None] | None, least: np.float32) -> set[tuple[int, int]]:
    """Return (position, number) of the alternatives whose score is lower."""
    return {
        (place, number)
        for place, some in enumerate(found or ())
        for number, value in enumerate(some or ())
        if value is not None and np.float32(value) < least
    }


def _reader(context: StepContext, image: dict[str, Any]) -> Callable[[], bytes]:
    return lambda: context.image_bytes(image["blob"], image["offset"], image["size"])


def _model_type(folder: Path, where: str) -> str:
    """Return the type of the model in a folder."""
    try:
        return str(json.loads((folder / "config.json").read_text()).get("model_type"))
    except (OSError, ValueError, AttributeError) as error:
        raise RecipeError(f"{where}.model: {folder} is not a model folder of transformers: {error}") from None
