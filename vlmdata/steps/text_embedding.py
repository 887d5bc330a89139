"""Store the CLIP embedding of the text that fits each image best, for steps that compare pairs of embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.models.clip_names import check_model, weights_identity
from vlmdata.parameters import Doc
from vlmdata.row import alive, flatten
from vlmdata.similarity.embeddings import embeddings_in
from vlmdata.step import RecipeError, Step, StepContext
from vlmdata.steps.clip_score import ClipScore
from vlmdata.text.compared_texts import compared_texts


@dataclass(frozen=True, kw_only=True)
class TextEmbedding(Step):
    """Measure for each image the unit embedding, fp16, of the text that its embedding has the highest cosine with.

    The texts are those that `clip_score` compares: in a caption pair, the caption and its alternatives; in a document, the
    image's alt text, its own caption and the nearest texts. Images without an embedding or without a text get none. The step
    rejects nothing. It is separate from `clip_score`, so a dataset that has embeddings of its images keeps them.
    """

    id: ClassVar = "vlmdata.steps.text_embedding"
    example: ClassVar = "- clip_score: {min_score: -1, embeddings: true}\n- text_embedding: {model: ViT-B-32}"
    packages: ClassVar = ClipScore.packages
    writes: ClassVar = {"": pa.list_(pa.binary())}
    measured_by: ClassVar = ("precision", "around", "embedding")
    needs: ClassVar = ("model", "gpu")

    model: Annotated[str, Doc("The `model` of the clip_score step.", source="the default of clip_score")] = "ViT-B-32"
    pretrained: Annotated[str, Doc("The `pretrained` of the clip_score step.", source="the default of clip_score")] = (
        "datacomp_xl_s13b_b90k"
    )
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Doc("Number format of the model. auto: bf16 on a GPU and on CPUs with AMX or AVX-512 BF16."),
    ] = "auto"
    compiled: Annotated[
        Literal["auto", "yes", "no"], Doc("Whether torch.compile is used, which takes a minute. auto: on a GPU.")
    ] = "auto"
    embedding: Annotated[str, Doc("Column of the images' embeddings.")] = "clip_score.embedding"
    around: Annotated[
        int,
        Doc("The `around` of the clip_score step.", unit="texts", source="the default of clip_score"),
    ] = 1
    batch: Annotated[
        int, Doc("Texts per batch. 0: 256 on a GPU, 16 on a CPU. The result does not depend on it.", unit="texts")
    ] = 0

    def check(self) -> None:
        if self.around < 0:
            raise RecipeError(f"{self.name}.around must be at least 0, not {self.around}")
        check_model(self.model, self.pretrained, self.name)

    def clip_weights(self) -> tuple[tuple[str, str], ...]:
        return ((self.model, self.pretrained),)

    def columns_read(self) -> tuple[str, ...]:
        return ("images", "texts", self.embedding)

    def identity(self) -> str:
        return weights_identity(self.model, self.pretrained)

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        from vlmdata.models.clip import clip_of

        clip = clip_of(context, self.model, self.pretrained, self.precision, self.compiled)
        context.note(clip.facts)
        images = flatten(rows, "images")
        has, vectors = embeddings_in(rows, self.embedding)
        here = has & images.alive() & alive(rows)[images.parents]
        positions = np.flatnonzero(here)
        units = vectors[(np.cumsum(has) - 1)[positions]]
        texts, owners, _ = compared_texts(rows, positions, self.around)
        kept: list[bytes | None] = [None] * len(images.items)
        if texts:
            unique = list(dict.fromkeys(texts))
            number = {text: place for place, text in enumerate(unique)}
            words = clip.embed_texts(unique, self.batch)  # (T, D)
            self._check_width(units, words)
            which = np.array([number[text] for text in texts])
            cosines = np.einsum("cd,cd->c", units[np.array(owners)], words[which])
            for owner, text in best_of(np.array(owners), which, cosines).items():
                kept[positions[owner]] = words[text].astype("<f2").tobytes()
        return {"": images.rebuild(pa.array(kept, pa.binary()))}

    def _check_width(self, images: np.ndarray, texts: np.ndarray) -> None:
        if images.shape[1] != texts.shape[1]:
            raise RecipeError(
                f"{self.name}.model: {self.model} embeds texts with the width {texts.shape[1]}, but {self.embedding} has "
                f"{images.shape[1]}. Give the model that embedded the images"
            )


def best_of(owners: np.ndarray, texts: np.ndarray, cosines: np.ndarray) -> dict[int, int]:
    """Return for each owner the text with its highest cosine, the first if several are equal. NaN is never the highest."""
    best: dict[int, tuple[float, int]] = {}
    for owner, text, cosine in zip(owners.tolist(), texts.tolist(), cosines.tolist(), strict=True):
        if not np.isnan(cosine) and (owner not in best or cosine > best[owner][0]):
            best[owner] = (cosine, text)
    return {owner: text for owner, (_, text) in best.items()}
