"""Keep texts that name one of many things: DataComp's text-based filter."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.row import drop_texts, flatten
from vlmdata.step import RecipeError, Step, StepContext
from vlmdata.text.listed_words import listed_in_runs, unspaced_words
from vlmdata.text.wordnet import ENDINGS, wordnet


@dataclass(frozen=True, kw_only=True)
class TextConcepts(Step):
    """Reject a text of whose words, split at white space and otherwise as they are, none is in the list.

    The list is `words`, one a line, in small letters; or `synsets`, ids of WordNet such as n02084071, of which a word's first
    synset must be one. Source: Gadre et al. 2023, DataComp, text-based: the synsets of ImageNet-21k; its code compares
    offsets without regard to the part of speech, and so does this. The word that was found is stored. Words of `words` in
    scripts without blanks between words, as Chinese, are looked for inside a text's.
    """

    id: ClassVar = "vlmdata.steps.text_concepts"
    version: ClassVar = 2  # scripts without blanks have words since 2

    reads: ClassVar = ("texts",)
    writes: ClassVar = {"": pa.list_(pa.string())}

    words: str = ""  # a text file
    synsets: str = ""  # a text file of ids
    wordnet: str = ""  # WordNet's `dict` folder, 3.0 for ImageNet's ids

    def check(self) -> None:
        if bool(self.words) == bool(self.synsets) or bool(self.synsets) != bool(self.wordnet):
            raise RecipeError(f"{self.name}: name either `words`, or `synsets` with the `wordnet` folder they are looked up in")
        for path in self._files():
            if not path.is_file():
                raise RecipeError(f"{self.name}: there is no file {path}")
        if self.synsets and not all(line[:1] in "nvars" and line[1:].isdigit() for line in _lines(self.synsets)):
            raise RecipeError(f"{self.name}.synsets: {self.synsets} must hold ids such as n02084071, one a line")

    def identity(self) -> str:
        digest = hashlib.sha256()
        for path in self._files():
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    def measure(self, rows: pa.Table, context: StepContext | None) -> dict[str, pa.Array]:
        texts = flatten(rows, "texts")
        found: list[str | None] = [None] * len(texts.items)
        words = texts.field("text").to_pylist()
        for at in np.flatnonzero(texts.alive()).tolist():
            found[at] = next((word for word in words[at].split() if self._is_listed(word)), None)
            if found[at] is None and self.words:
                found[at] = next(listed_in_runs(words[at], *_unspaced(self.words)), None)
        return {"": texts.rebuild(pa.array(found, pa.string()))}

    def decide(self, rows: pa.Table) -> pa.Table:
        measured = rows[self.name].combine_chunks()
        texts, found = flatten(rows, "texts"), flatten(rows, self.name)
        has_list = np.diff(found.offsets.to_numpy()) > 0
        lacks = np.zeros(len(texts.items), bool)
        lacks[has_list[texts.parents]] = np.asarray(measured.flatten().is_null())
        return drop_texts(rows, lacks, self.name, reason="names_nothing_listed")

    def _is_listed(self, word: str) -> bool:
        if self.words:
            return word.lower() in _words(self.words)
        return _first_synset(self.wordnet, word) in _offsets(self.synsets)

    def _files(self) -> list[Path]:
        if self.words:
            return [Path(self.words)]
        parts = [Path(self.wordnet) / name for context in ENDINGS for name in (f"index.{context}", f"{context}.exc")]
        return [Path(self.synsets), *parts]


def _lines(path: str) -> list[str]:
    return [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


@lru_cache(maxsize=2)
def _words(path: str) -> frozenset[str]:
    return frozenset(word.lower() for word in _lines(path))


@lru_cache(maxsize=2)
def _unspaced(path: str) -> tuple[frozenset[str], int]:
    return unspaced_words(_words(path))


@lru_cache(maxsize=2)
def _offsets(path: str) -> frozenset[int | None]:
    return frozenset(int(line[1:]) for line in _lines(path))


@lru_cache(maxsize=1 << 20)
def _first_synset(folder: str, word: str) -> int | None:
    return wordnet(folder).first_synset(word)
