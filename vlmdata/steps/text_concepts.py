"""Keep texts that contain a listed concept: DataComp's text-based filter."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.home_folder import at_home
from vlmdata.parameters import Doc
from vlmdata.row import drop_texts, flatten
from vlmdata.step import RecipeError, Step, StepContext
from vlmdata.text.listed_words import listed_in_runs, unspaced_words
from vlmdata.text.wordnet import ENDINGS, wordnet

NEEDED = {  # what a user sets a parameter to
    "words": "Give a text file with one word per line",
    "synsets": "Give a text file with one WordNet id per line",
    "wordnet": "Give the folder `dict` of WordNet 3.0",
}


@dataclass(frozen=True, kw_only=True)
class TextConcepts(Step):
    """Reject a text if none of its words is in the list. Texts are split at white space only, so punctuation stays on words.

    The list is the file `words` with one word per line, or the file `synsets` with WordNet ids such as n02084071. With
    `synsets`, a word matches if its first synset is listed. Entries of `words` in scripts without spaces, such as Chinese,
    match anywhere in a text. The first matching word is stored. Source: Gadre et al. 2023, DataComp's text-based filter, with
    the synsets of ImageNet-21k. Like DataComp's code, this step compares the numbers in ids and ignores their first letter, the
    part of speech.
    """

    id: ClassVar = "vlmdata.steps.text_concepts"
    example: ClassVar = "- text_concepts: {synsets: imagenet21k_wordnet_ids.txt, wordnet: WordNet-3.0/dict}"
    version: ClassVar = 2  # since version 2, text in scripts without spaces is split into words

    reads: ClassVar = ("texts",)
    writes: ClassVar = {"": pa.list_(pa.string())}

    words: Annotated[str, Doc("Text file with one word per line. Set either `words`, or `synsets` and `wordnet`.")] = ""
    synsets: Annotated[str, Doc("Text file with one WordNet id per line, such as n02084071.")] = ""
    wordnet: Annotated[str, Doc("WordNet's `dict` folder. ImageNet's ids are of version 3.0.")] = ""

    def check(self) -> None:
        if bool(self.words) == bool(self.synsets) or bool(self.synsets) != bool(self.wordnet):
            raise RecipeError(
                f"{self.name}: set either `words`, or both `synsets` and `wordnet` (the folder of WordNet's files)"
            )
        for name, path in self._files():
            if not path.is_file():
                raise RecipeError(f"{self.name}.{name}: there is no file {path}. {NEEDED[name]}")
        if self.synsets and not all(line[:1] in "nvars" and line[1:].isdigit() for line in _lines(self.synsets)):
            raise RecipeError(f"{self.name}.synsets: {self.synsets} must hold one id such as n02084071 per line")

    def identity(self) -> str:
        digest = hashlib.sha256()
        for _, path in self._files():
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

    def _files(self) -> list[tuple[str, Path]]:
        """Return the files of the step, each after the name of its parameter."""
        if self.words:
            return [("words", Path(at_home(self.words)))]
        parts = [Path(at_home(self.wordnet)) / name for context in ENDINGS for name in (f"index.{context}", f"{context}.exc")]
        return [("synsets", Path(at_home(self.synsets))), *(("wordnet", part) for part in parts)]


def _lines(path: str) -> list[str]:
    return [line.strip() for line in Path(at_home(path)).read_text(encoding="utf-8").splitlines() if line.strip()]


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
    return wordnet(at_home(folder)).first_synset(word)
