"""Reject rows with an image to which an image classifier, such as GantMan's MobileNetV2, assigns an unwanted label."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.catalog import suggest
from vlmdata.models.model_folder import folder_of, folder_or_name, model_identity
from vlmdata.models.nsfwjs_folder import check_converted, is_converted
from vlmdata.parameters import Doc
from vlmdata.row import aligned, aligned_items, drop_images, drop_rows, flatten
from vlmdata.step import RecipeError, Step, StepContext

if TYPE_CHECKING:
    from vlmdata.models.image_classifier import ImageClassifier
    from vlmdata.models.nsfw_mobilenet import NsfwMobileNet

UNSEEN = "not_decodable"  # stored as the label of an image that cannot be decoded


@dataclass(frozen=True, kw_only=True)
class NsfwImages(Step):
    """Reject a row if an image classifier gives one of its images a probability above `max_probability` for one of `labels`.

    The classifier is one that transformers can load, or the one that OBELICS used: GantMan's NSFW MobileNetV2, converted from
    the npm package nsfwjs (see [classifier heads](heads.md)).
    Each label has its own value in `max_probability`. With `rejects: image`, the step rejects only the images themselves and
    not their rows. For each image, it stores the most probable of `labels` and its probability, rounded to 4 digits. This is
    enough, because limits are at least 0.5, so only the most probable label can exceed its limit. An image that cannot be
    decoded within the default limits of memory and cost is rejected as `not_decodable`.
    """

    id: ClassVar = "vlmdata.steps.nsfw_images"
    example: ClassVar = "- nsfw_images: {model: classifier, labels: [porn, hentai], max_probability: [0.85, 0.9]}"
    packages: ClassVar = (
        "torch",
        "torchvision",
        "transformers",
    )
    reads: ClassVar = ("images",)
    fetched: ClassVar = ("blob",)
    writes: ClassVar = {"": pa.list_(pa.float32()), "label": pa.list_(pa.string())}
    measured_by: ClassVar = ("labels",)
    needs: ClassVar = ("model", "gpu")
    is_private: ClassVar = True

    model: Annotated[
        str,
        Doc(
            "Folder, or name on the Hugging Face Hub, of an image classifier that transformers can load, or a folder that "
            "`python -m vlmdata.models.convert_nsfwjs` wrote."
        ),
    ]
    labels: Annotated[list[str], Doc("The model's unwanted labels.", source="OBELICS, step 16")] = field(
        default_factory=lambda: ["porn", "hentai"]
    )
    max_probability: Annotated[
        list[float],
        Doc(
            "Limit for each of `labels`, in order. An image with a greater probability is unwanted.",
            unit="probability, 0.5 to 1",
            source="OBELICS, step 16",
        ),
    ] = field(default_factory=lambda: [0.85, 0.9])
    rejects: Annotated[
        Literal["row", "image"],
        Doc(
            "Whether an unwanted image rejects its whole row or only itself.",
            source="OBELICS, which rejects the whole document",
        ),
    ] = "row"
    batch: Annotated[int, Doc("Images per batch.", unit="images", source="vlmdata's choice")] = 32

    def check(self) -> None:
        if not self.labels or len(self.labels) != len(self.max_probability):
            raise RecipeError(f"{self.name}: give one max_probability for each label in labels")
        if any(not 0.5 <= limit <= 1 for limit in self.max_probability):
            raise RecipeError(f"{self.name}.max_probability: each value must lie in [0.5, 1]")
        try:
            folder = folder_or_name(self.model)
        except RecipeError as error:
            raise RecipeError(f"{self.name}.{error}") from None
        if folder is None:
            return
        config = self._config(folder)
        if is_converted(config):
            try:
                check_converted(folder, config)
            except RecipeError as error:
                raise RecipeError(f"{self.name}.{error}") from None
        names = config.get("id2label")
        known = list(map(str, names.values())) if isinstance(names, dict) else []
        for label in self.labels:
            if label not in known:
                raise RecipeError(f"{self.name}.labels: the model has no label '{label}'.{suggest(label, known)}")

    def packages_needed(self) -> tuple[str, ...]:
        folder = folder_of(self.model)
        if folder is not None and is_converted(self._config(folder)):
            return ("safetensors", "torch", "torchvision")
        return self.packages

    def _config(self, folder: Path) -> dict[str, Any]:
        """Return the contents of config.json in a model folder."""
        try:
            config = json.loads((folder / "config.json").read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise RecipeError(f"{self.name}.model: {folder} is not a model folder of transformers: {error}") from None
        if not isinstance(config, dict):
            raise RecipeError(f"{self.name}.model: {folder} is not a model folder of transformers: config.json is no mapping")
        return config

    def identity(self) -> str:
        return model_identity(self.model)

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        classifier: ImageClassifier | NsfwMobileNet = context.kept(f"classifier {self.model}", self._load)
        images = flatten(rows, "images")
        positions = np.flatnonzero(images.alive())
        places = [images.field(name).to_pylist() for name in ("blob", "offset", "size")]
        bodies = (context.image_bytes(places[0][i], places[1][i], places[2][i]) for i in positions)
        columns = [classifier.labels.index(label) for label in self.labels]
        found = classifier.probabilities(bodies, self.batch)[:, columns]
        highest: list[float | None] = [None] * len(images.items)
        which: list[str | None] = [None] * len(images.items)
        for at, probabilities in zip(positions, found, strict=True):
            if np.isnan(probabilities).any():
                which[at] = UNSEEN
                continue
            best = int(probabilities.argmax())
            highest[at], which[at] = round(float(probabilities[best]), 4), self.labels[best]
        return {
            "": images.rebuild(pa.array(highest, pa.float32())),
            "label": images.rebuild(pa.array(which, pa.string())),
        }

    def _load(self) -> ImageClassifier | NsfwMobileNet:
        folder = folder_of(self.model)
        if folder is not None and is_converted(self._config(folder)):
            from vlmdata.models.nsfw_mobilenet import NsfwMobileNet

            return NsfwMobileNet(str(folder))  # `check` compared its labels
        from vlmdata.models.image_classifier import ImageClassifier

        classifier = ImageClassifier(str(folder) if folder is not None else self.model)
        missing = [label for label in self.labels if label not in classifier.labels]
        if missing:
            raise RecipeError(
                f"{self.name}.labels: the model has no label '{missing[0]}'.{suggest(missing[0], classifier.labels)}"
            )
        return classifier

    def decide(self, rows: pa.Table) -> pa.Table:
        value, images = aligned(rows, self.name, "images"), flatten(rows, "images")
        which = np.array(aligned_items(rows, self.column("label"), "images").to_pylist(), object)
        rows = drop_images(rows, which == UNSEEN, self.name, reason=UNSEEN)
        for label, limit in zip(self.labels, self.max_probability, strict=True):
            bad = (value > np.float32(limit)) & (which == label)
            if self.rejects == "image":
                rows = drop_images(rows, bad, self.name, reason=label, value=value, threshold=limit)
                continue
            worst = np.full(len(rows), np.nan)
            np.fmax.at(worst, images.parents[bad], value[bad])
            rows = drop_rows(rows, ~np.isnan(worst), self.name, reason=label, value=worst, threshold=limit)
        return rows
