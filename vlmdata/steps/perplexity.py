"""Reject texts that a language model finds improbable, such as keyword lists, broken sentences and other languages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import pyarrow as pa

from vlmdata.extras import check_installed
from vlmdata.models.weights_identity import identity
from vlmdata.parameters import Doc
from vlmdata.row import drop_rows, flatten, numbers
from vlmdata.step import RecipeError, Step, StepContext

if TYPE_CHECKING:
    from vlmdata.text.fluency import Fluency


@dataclass(frozen=True, kw_only=True)
class Perplexity(Step):
    """Join the remaining texts of a row, and reject the row if their perplexity is above `max_perplexity`.

    The perplexity is computed with the KenLM model `model`. Perplexities of different models are not comparable, so choose the
    threshold for the model. The step needs the packages of `vlmdata[perplexity]`.
    """

    id: ClassVar = "vlmdata.steps.perplexity"
    example: ClassVar = "- perplexity: {model: en.arpa.bin, pieces: en.sp.model, max_perplexity: 1500}"
    packages: ClassVar = ("kenlm",)
    reads: ClassVar = ("texts",)
    writes: ClassVar = {"": pa.float32()}
    needs: ClassVar = ("model",)

    model: Annotated[str, Doc("KenLM file, ARPA or binary, such as CCNet's en.arpa.bin.")]
    pieces: Annotated[
        str, Doc("SentencePiece model of the training data of `model`, such as CCNet's en.sp.model. Empty: split at spaces.")
    ] = ""
    max_perplexity: Annotated[
        float,
        Doc(
            "A row with a greater perplexity is rejected. Choose the limit for the model.",
            unit="perplexity, 1 or more",
            source="OBELICS, documents, with CCNet's model",
        ),
    ] = 1500

    def check(self) -> None:
        check_installed(["sentencepiece"] if self.pieces else [], f"step {self.name}")
        for name, path in (("model", self.model), ("pieces", self.pieces)):
            if path and not Path(path).expanduser().is_file():
                raise RecipeError(f"{self.name}.{name}: there is no file {path}")

    def identity(self) -> str:
        return " ".join(identity(str(Path(path).expanduser())) for path in (self.model, self.pieces) if path)

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        model: Fluency = context.kept(f"kenlm {self.model} {self.pieces}", self._load)
        flat = flatten(rows, "texts")
        texts: list[list[str]] = [[] for _ in range(len(rows))]
        for text, row, is_alive in zip(flat.field("text").to_pylist(), flat.parents, flat.alive(), strict=True):
            if is_alive and text:
                texts[row].append(text)
        found = [model.perplexity("\n\n".join(parts)) if parts else None for parts in texts]
        return {"": pa.array(found, pa.float32())}

    def _load(self) -> Fluency:
        from vlmdata.text.fluency import Fluency

        return Fluency(*(str(Path(path).expanduser()) if path else "" for path in (self.model, self.pieces)))

    def decide(self, rows: pa.Table) -> pa.Table:
        value = numbers(rows[self.name].combine_chunks())
        bad = value > self.max_perplexity
        return drop_rows(rows, bad, self.name, reason="max_perplexity", value=value, threshold=self.max_perplexity)
