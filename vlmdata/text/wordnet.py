"""Finds the first synset of a word in WordNet, as NLTK's `wordnet.synsets(word)[0]` does.

Reads the files of WordNet's `dict` folder: index.noun, index.verb, index.adj, index.adv and the lists of exceptions
(noun.exc etc.). Sources: WordNet's manual, wndb(5WN) for the files and morphy(7WN) for the endings.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

PARTS = ("noun", "verb", "adj", "adv")  # in this order, so that a word that is a noun and a verb counts as a noun
ENDINGS = {
    "noun": (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "verb": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}


class WordNet:
    """The lemmas of the four parts of speech with the offset of their first sense, and the irregular forms."""

    def __init__(self, folder: Path):
        self.first = {part: _index(folder / f"index.{part}") for part in PARTS}
        self.exceptions = {part: _exceptions(folder / f"{part}.exc") for part in PARTS}

    def first_synset(self, word: str) -> int | None:
        """Return the offset of a word's first synset in the data file of its part of speech, or None for an unknown word."""
        word = word.lower()
        for part in PARTS:
            lemma = self._lemma(word, part)
            if lemma is not None:
                return self.first[part][lemma]
        return None

    def _lemma(self, word: str, part: str) -> str | None:
        """Return the first form of a word that is a lemma, or None if no form is a lemma.

        The forms are the word itself, its irregular forms, and the word with its endings removed or replaced.
        """
        known = self.first[part]
        if word in self.exceptions[part]:
            return next((form for form in (word, *self.exceptions[part][word]) if form in known), None)
        forms = [word]
        while forms:
            if found := next((form for form in forms if form in known), None):
                return found
            forms = [form.removesuffix(old) + new for form in forms for old, new in ENDINGS[part] if form.endswith(old)]
        return None


@lru_cache(maxsize=2)
def wordnet(folder: str) -> WordNet:
    """Return the WordNet in a folder. The results for the last two folders are cached."""
    return WordNet(Path(folder))


def _index(path: Path) -> dict[str, int]:
    """Read an index file of WordNet, and return the offset of the most frequent synset of each lemma.

    A line of the file holds the lemma, the part of speech, the number n of synsets, other fields, and the offsets of the n
    synsets. The offset of the most frequent synset comes first.
    """
    found = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith(" "):  # lines of the licence begin with a space
                fields = line.split()
                found[fields[0]] = int(fields[-int(fields[2])])
    return found


def _exceptions(path: Path) -> dict[str, list[str]]:
    with path.open(encoding="utf-8") as file:
        return {words[0]: words[1:] for words in map(str.split, file) if words}
