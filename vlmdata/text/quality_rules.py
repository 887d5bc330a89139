"""OBELICS's rules for texts: thresholds on its measures, for paragraphs and for whole documents."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from vlmdata.notes import Note
from vlmdata.parameters import Doc
from vlmdata.text.obelics_metrics import Metrics, WordLists, measure
from vlmdata.text.word_lists import fingerprint_of, read_stop_words, read_words


class Rule(NamedTuple):
    """The result of one rule: which texts it rejects (`bad`), the measured value of each text, and the threshold."""

    reason: str
    bad: np.ndarray
    value: np.ndarray
    threshold: float


@dataclass(frozen=True, kw_only=True)
class QualityRules:
    """Thresholds on measures of a text. A text is rejected for the first rule that it breaks.

    A rule without its word list is off, and `vlmdata check` warns about this. As in OBELICS, only white space separates words,
    so a paragraph of Chinese or Thai counts as one word, and `min_words` rejects it.
    """

    min_words: Annotated[
        int, Doc("A text with fewer words is rejected.", unit="words", source="OBELICS (Laurençon et al. 2023, appendix A.1)")
    ]
    max_words: Annotated[
        int, Doc("A text with more words is rejected.", unit="words", source="OBELICS (Laurençon et al. 2023, appendix A.1)")
    ]
    max_char_repetition: Annotated[
        float,
        Doc(
            "Greatest share of the most frequent character 10-grams.",
            unit="share of 10-grams, 0 to 1",
            source="OBELICS (Laurençon et al. 2023, appendix A.1)",
        ),
    ]
    max_word_repetition: Annotated[
        float,
        Doc(
            "Greatest share of word 5-grams that occur more than once.",
            unit="share of 5-grams, 0 to 1",
            source="OBELICS (Laurençon et al. 2023, appendix A.1)",
        ),
    ]
    max_special: Annotated[
        float,
        Doc(
            "Greatest share of characters that are punctuation, digits, white space or symbols.",
            unit="share of characters, 0 to 1",
            source="OBELICS (Laurençon et al. 2023, appendix A.1)",
        ),
    ]
    min_stop_words: Annotated[
        float,
        Doc(
            "Least share of words in `stop_words`.",
            unit="share of words, 0 to 1",
            source="OBELICS (Laurençon et al. 2023, appendix A.1)",
        ),
    ]
    max_flagged_words: Annotated[
        float,
        Doc(
            "Greatest share of words in `flagged_words`.",
            unit="share of words, 0 to 1",
            source="OBELICS (Laurençon et al. 2023, appendix A.1)",
        ),
    ]
    min_punctuation: Annotated[
        float,
        Doc(
            "Least share of the marks , ; : ? ! . among marks and words.",
            unit="share of marks and words, 0 to 1",
            source="OBELICS (Laurençon et al. 2023, appendix A.1)",
        ),
    ]
    min_common_words: Annotated[
        float,
        Doc(
            "Least share of words in `common_words`.",
            unit="share of words, 0 to 1",
            source="OBELICS (Laurençon et al. 2023, appendix A.1)",
        ),
    ]
    max_spam_words: Annotated[
        float,
        Doc(
            "Share of words in `spam_words` from which on a text is rejected.",
            unit="share of words, 0 to 1",
            source="OBELICS (Laurençon et al. 2023, appendix A.1)",
        ),
    ]
    stop_words: Annotated[
        str,
        Doc(
            "Language code of the library stop-words, or a file. Empty: the rule is off, and the extra `[text]` is not needed. "
            "OBELICS's 301 words are stricter.",
            source="vlmdata's choice",
        ),
    ] = "en"
    flagged_words: Annotated[str, Doc("File with one word per line, or JSON. Empty: the rule is off.")] = ""
    common_words: Annotated[str, Doc("File with one word per line, or JSON. Empty: the rule is off.")] = ""
    spam_words: Annotated[str, Doc("File with one word per line, or JSON. Empty: the rule is off.")] = ""

    measured: ClassVar[tuple[str, ...]] = ("stop_words", "flagged_words", "common_words", "spam_words")
    limits: ClassVar[Mapping[str, str]] = {"max_spam_words": ">= max_spam_words"}
    types: ClassVar[dict[str, pa.DataType]] = {name: pa.float32() for name in Metrics._fields}

    def lists(self, where: str) -> WordLists:
        """Return the word lists. Raises RecipeError if a list cannot be read; `where` names the step in the error message."""
        named = (self.flagged_words, self.common_words, self.spam_words)
        return WordLists(read_stop_words(self.stop_words, where), *(read_words(name, where) for name in named))

    def report_rules_off(self, where: str) -> None:
        """Warn about the rules that are off because they have no word list."""
        off = [name for name in self.measured if not getattr(self, name)]
        if off:
            warnings.warn(f"{where}: these rules have no word list and are off: {', '.join(off)}", Note, stacklevel=2)

    def lists_fingerprint(self, where: str) -> str:
        """Return 16 hex digits that identify the words of the lists."""
        return fingerprint_of(*self.lists(where))

    def rules(self, values: Callable[[str], np.ndarray]) -> Iterator[Rule]:
        """Yield the results of the rules in OBELICS's order.

        `values(name)` returns the measure `name` of each text, or NaN for a missing measure.
        """
        for measured, side, threshold in (
            ("words", "min", self.min_words),
            ("words", "max", self.max_words),
            ("char_repetition", "max", self.max_char_repetition),
            ("word_repetition", "max", self.max_word_repetition),
            ("special", "max", self.max_special),
            ("stop_words", "min", self.min_stop_words),
            ("flagged_words", "max", self.max_flagged_words),
            ("punctuation", "min", self.min_punctuation),
            ("common_words", "min", self.min_common_words),
        ):
            value = values(measured)
            limit = np.float32(threshold)  # measures are stored as float32
            yield Rule(f"{side}_{measured}", value < limit if side == "min" else value > limit, value, threshold)
        value = values("spam_words")
        yield Rule("max_spam_words", value >= np.float32(self.max_spam_words), value, self.max_spam_words)


def measures(texts: Sequence[str | None], lists: WordLists, *, min_tokens: int = 0) -> dict[str, pa.Array]:
    """Return each measure of all texts as a float32 array, by name. A text that is None has null measures."""
    found = [None if text is None else measure(text, lists, min_tokens=min_tokens) for text in texts]
    return {
        name: pa.array([None if one is None else one[i] for one in found], pa.float32())
        for i, name in enumerate(Metrics._fields)
    }
