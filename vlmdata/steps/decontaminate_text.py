"""Reject texts that contain n-grams of evaluation texts."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.home_folder import at_home
from vlmdata.parameters import Doc
from vlmdata.row import aligned, drop_texts, flatten
from vlmdata.similarity.ngrams import Index, coverage, index_of
from vlmdata.similarity.references import TEXTS, identity_of, texts_in
from vlmdata.step import RecipeError, Step, StepContext


@dataclass(frozen=True, kw_only=True)
class DecontaminateText(Step):
    """Reject a text if too many of its words are in n-grams that also occur in a reference text.

    An n-gram is a sequence of n words. A text is rejected if the fraction of such words in the text, or in one of its
    alternatives, is above `share`. With `share: 0`, one common n-gram is enough. Words are compared in lower case and without
    punctuation. A reference text of `min_words` to n - 1 words must occur as a whole. A shorter reference text is ignored. In a
    script without spaces (Chinese, Japanese, Thai and others) two letters count as a word.
    Source: Brown et al. 2020, GPT-3, appendix C.
    """

    id: ClassVar = "vlmdata.steps.decontaminate_text"
    example: ClassVar = "- decontaminate_text: {references: [eval/questions, eval/coco.tar], n: 13}"
    reads: ClassVar = ("texts",)
    writes: ClassVar = {"share": pa.list_(pa.float64())}
    measured_by: ClassVar = ("n", "min_words")
    version: ClassVar = 2  # since version 2, text in scripts without spaces is split into words
    limits: ClassVar = {"in_evaluation": "> share"}

    references: Annotated[
        tuple[str, ...],
        Doc("Folders, tars or files of evaluation texts: each line of .txt, each string in .json, .jsonl and .parquet."),
    ]
    n: Annotated[int, Doc("Words of an n-gram.", unit="words", source="GPT-3 (Brown et al. 2020, appendix C)")] = 13
    min_words: Annotated[
        int,
        Doc(
            "A reference text of this many to n - 1 words must occur as a whole. A shorter one is ignored.",
            unit="words",
            source="GPT-3 (Brown et al. 2020, appendix C)",
        ),
    ] = 8
    share: Annotated[
        float,
        Doc(
            "A text is rejected if more of its words than this are in n-grams of references. 0: one n-gram is enough.",
            unit="share of words, 0 to 1",
        ),
    ] = 0.0

    def check(self) -> None:
        if not 1 <= self.min_words <= self.n or not 0 <= self.share < 1:
            raise RecipeError(f"{self.name}: min_words must lie in [1, n] and share in [0, 1)")
        for path in self.references:
            if not Path(at_home(path)).exists():
                raise RecipeError(f"{self.name}.references: there is no file or folder {path}")
        try:
            self.identity()
        except ValueError as error:
            raise RecipeError(f"{self.name}.references: {error}") from None

    def identity(self) -> str:
        return identity_of(tuple(map(at_home, self.references)), TEXTS)

    def measure(self, rows: pa.Table, context: StepContext | None) -> dict[str, pa.Array]:
        texts = flatten(rows, "texts")
        places = np.flatnonzero(texts.alive())
        words, owners = [], []
        fields = (texts.field(name).take(pa.array(places)).to_pylist() for name in ("text", "alternatives"))
        for place, (text, others) in zip(places.tolist(), zip(*fields, strict=True), strict=True):
            found = [text or "", *(others or [])]
            words += found
            owners += [place] * len(found)
        value = np.where(texts.alive(), 0, np.nan)
        np.maximum.at(value, np.array(owners, np.int64), coverage(words, _index(self.references, self.n, self.min_words)))
        return {"share": texts.rebuild(pa.array(np.round(value, 6), pa.float64(), from_pandas=True))}

    def decide(self, rows: pa.Table) -> pa.Table:
        value = aligned(rows, self.column("share"), "texts")
        return drop_texts(rows, value > self.share, self.name, reason="in_evaluation", value=value, threshold=self.share)


@lru_cache(maxsize=4)
def _index(references: tuple[str, ...], n: int, min_words: int) -> Index:
    return index_of([text for path in references for text in texts_in(at_home(path))], n, min_words=min_words)
