"""Score images by a classifier head on stored embeddings, such as LAION's heads for aesthetics and for unsafe images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

import numpy as np
import pyarrow as pa

from vlmdata.catalog import suggest
from vlmdata.models.classifier_head import DIGITS, Head, head_identity, load_head, weights_file
from vlmdata.models.clip_names import WEIGHTS, embedding_width, has_own_weights, names_at_home
from vlmdata.models.head_description import Encoder, read_description
from vlmdata.models.head_weights import file_hash, package_of
from vlmdata.parameters import Doc
from vlmdata.row import aligned, drop_images, flatten
from vlmdata.scores import as_stored
from vlmdata.similarity.embeddings import embeddings_in, has_value
from vlmdata.step import RecipeError, Step, StepContext
from vlmdata.steps.clip_score import ClipScore

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ClassifierHead(Step):
    """Reject an image if a score that a classifier head gives to its embedding is below `min` or above `max`.

    The head is an affine map or a multi-layer perceptron. Its description says which tensors of `weights` are its layers, how
    an embedding is normalised and what the scores are called. Descriptions of LAION's published heads come with vlmdata (see
    [classifier heads](heads.md)). The column with the step's name holds the first score. If a head gives several, `scores`
    holds all of them, in the order of the description. Scores are rounded to 4 digits. An image without an embedding, or with
    one that is not finite, has no score and stays.
    """

    id: ClassVar = "vlmdata.steps.classifier_head"
    example: ClassVar = (
        "- clip_score: {model: ViT-L-14-quickgelu, pretrained: openai, min_score: -1, embeddings: true}\n"
        "- classifier_head: {head: laion_aesthetic_v2_l14, weights: aesthetic.pth, min: {aesthetic: 5}}"
    )
    writes: ClassVar = {"": pa.list_(pa.float32()), "scores": pa.list_(pa.list_(pa.float32()))}
    measured_by: ClassVar = ("embedding",)
    limits: ClassVar = {"min_*": "< min", "max_*": "> max"}

    head: Annotated[str, Doc("File with the description of the head, or the name of a description that comes with vlmdata.")]
    weights: Annotated[
        str, Doc("File with the head's tensors: .safetensors, .pt or .pth. Empty: the file that the description names.")
    ] = ""
    embedding: Annotated[str, Doc("Column of the embeddings.")] = "clip_score.embedding"
    min: Annotated[
        dict[str, float], Doc("An image with a lower score is rejected. The keys are names of scores.", unit="as the score")
    ] = field(default_factory=dict)
    max: Annotated[
        dict[str, float], Doc("An image with a greater score is rejected. The keys are names of scores.", unit="as the score")
    ] = field(default_factory=dict)

    def check(self) -> None:
        self._prefixed(lambda: load_head(self.head, self.weights))
        names = self._names()
        for parameter, limits in (("min", self.min), ("max", self.max)):
            for name, limit in limits.items():
                if name not in names:
                    raise RecipeError(f"{self.name}.{parameter}: the head has no score '{name}'.{suggest(name, names)}")
                if not math.isfinite(limit):
                    raise RecipeError(f"{self.name}.{parameter}.{name} must be a number, not {limit}")
        for name in self.min.keys() & self.max.keys():
            if self.min[name] > self.max[name]:
                raise RecipeError(f"{self.name}.min.{name} = {self.min[name]} is above max.{name} = {self.max[name]}")

    def check_steps(self, before: Sequence[Step]) -> None:
        maker = next((s for s in before if isinstance(s, ClipScore) and s.column("embedding") == self.embedding), None)
        if maker is None:  # a step of the user's made the embeddings
            return
        head = self._prefixed(lambda: read_description(self.head))
        why = _other_encoder(maker, head.encoder) if head.encoder else ""
        width = embedding_width(maker.model)
        if not why and width not in (None, head.input.width):
            why = f"its embeddings have width {width}, and those that the head takes have width {head.input.width}"
        if why:
            wanted = (
                f"{' or '.join(head.encoder.models)} {head.encoder.pretrained}".strip() if head.encoder else "another model"
            )
            raise RecipeError(
                f"{self.name}.head: the head does not fit {maker.name}: {why}. Embed with {wanted}, or name another head"
            )

    def columns_read(self) -> tuple[str, ...]:
        return ("images", self.embedding)

    def packages_needed(self) -> tuple[str, ...]:
        return (self._prefixed(lambda: package_of(weights_file(self.head, self.weights))),)

    def identity(self) -> str:
        return self._prefixed(lambda: head_identity(self.head, self.weights))

    def measure(self, rows: pa.Table, context: StepContext | None) -> dict[str, pa.Array]:
        images = flatten(rows, "images")
        has, vectors = embeddings_in(rows, self.embedding)
        names = self._names()
        found = np.full((len(has), len(names)), np.nan)
        if has.any():
            head = _loaded(self.head, self.weights, self.identity())
            try:
                found[has] = np.round(head.scores(vectors).astype(np.float64), DIGITS)
            except ValueError as error:
                raise RecipeError(
                    f"{self.name}.embedding: {error}. Name the column of another model, or another head"
                ) from None
        scores = pa.nulls(len(has), pa.list_(pa.float32()))
        if len(names) > 1:
            is_missing = np.isnan(found[:, 0])
            flat = pa.array(found[~is_missing].ravel(), pa.float32())
            starts = np.concatenate([[0], np.cumsum(~is_missing) * len(names)])
            scores = pa.ListArray.from_arrays(pa.array(starts, pa.int32()), flat, mask=pa.array(is_missing))
        first = pa.array(found[:, 0], pa.float32(), from_pandas=True)
        return {"": images.rebuild(first), "scores": images.rebuild(scores)}

    def decide(self, rows: pa.Table) -> pa.Table:
        for kind, limits in (("min", self.min), ("max", self.max)):
            for name, limit in limits.items():
                value, threshold = self._score(rows, name), as_stored(limit, rows, self.name)
                bad = value < threshold if kind == "min" else value > threshold
                rows = drop_images(rows, bad, self.name, reason=f"{kind}_{name}", value=value, threshold=limit)
        return rows

    def _score(self, rows: pa.Table, name: str) -> np.ndarray:
        """Return the stored score with this name for every position of `images`: float64, with NaN if it is missing."""
        names = self._names()
        if name == names[0]:
            return aligned(rows, self.name, "images")
        column = self.column("scores")
        has = has_value(rows, column)
        values = np.full(len(has), np.nan)
        flat = flatten(rows, column).items.drop_null().flatten().to_numpy(zero_copy_only=False)
        values[has] = flat.reshape(-1, len(names))[:, names.index(name)]
        return values

    def _names(self) -> list[str]:
        return self._prefixed(lambda: list(read_description(self.head).outputs))

    def _prefixed(self, act: Callable[[], T]) -> T:
        """Return what `act` returns. The message of its RecipeError, which begins with a parameter, gets the step's name."""
        try:
            return act()
        except RecipeError as error:
            raise RecipeError(f"{self.name}.{error}") from None


@lru_cache(maxsize=4)
def _loaded(head: str, weights: str, identity: str) -> Head:
    return load_head(head, weights)


def _other_encoder(maker: ClipScore, encoder: Encoder) -> str:
    """Return why the embeddings of a clip_score step are not those of the head's encoder, or "" if that is not known."""
    model, pretrained = names_at_home(maker.model, maker.pretrained)
    files = [Path(pretrained)] if Path(pretrained).is_file() else []
    if has_own_weights(model):
        folder = Path(model.removeprefix("local-dir:"))
        files = [file for file in sorted(folder.glob("*")) if file.suffix in WEIGHTS] if folder.is_dir() else []
    elif _plain(model) not in map(_plain, encoder.models):
        return f"it was made for {' or '.join(encoder.models)}, not for {model}"
    elif encoder.pretrained and not files and _plain(pretrained) != _plain(encoder.pretrained):
        return f"it was made for the weights {encoder.pretrained}, not for {pretrained}"
    if encoder.sha256 and files and encoder.sha256 not in map(file_hash, files):
        place = model if has_own_weights(model) else pretrained
        return f"no file of weights in {place} has the SHA-256 {encoder.sha256} of the head's encoder"
    return ""


def _plain(name: str) -> str:
    return name.lower().replace("/", "-").replace("_", "-")
