"""Text measures equal those of the released code of OBELICS."""

import random
from collections import Counter

import pytest

from vlmdata.text.obelics_metrics import (
    WordLists,
    char_repetition,
    measure,
    punctuation_ratio,
    share_in,
    special_ratio,
    word_repetition,
    words_of,
)

FOX = "The quick brown fox jumps over the lazy dog, and the dog sleeps again in the warm sun. It was a long day!"
STOP = frozenset(["the", "over", "and", "in", "it", "was", "a"])  # of OBELICS's list


def test_the_measures_of_a_sentence_equal_those_of_obelics():
    found = measure(FOX, WordLists(stop=STOP))
    assert found.words == 23
    assert (found.special, found.stop_words, found.punctuation) == pytest.approx((0.2381, 0.4348, 0.1154), abs=5e-5)
    assert (found.char_repetition, found.word_repetition) == (0, 0)
    assert (found.flagged_words, found.common_words, found.spam_words) == (None, None, None)


def test_words_lose_special_characters_at_their_ends_only():
    assert words_of("“It's\tup-to-date”, …\n #1! ★★ co2\u00a0x 你好。") == ["it's", "up-to-date", "co2\u00a0x", "你好"]


def by_definition(text: str, size: int = 10) -> float:
    counts = sorted(Counter(text[i : i + size] for i in range(len(text) - size + 1)).values(), reverse=True)
    top = min(int(len(counts) ** 0.5), sum(count > 1 for count in counts))
    return sum(counts[:top]) / sum(counts)


@pytest.mark.parametrize("length", [10, 60, 399, 400, 5000])
def test_repetition_of_characters_equals_its_definition_at_any_length(length):
    chooser = random.Random(length)
    text = "".join(chooser.choice(["ab", "abcdefghij", "x y ", "ü🎉"]) for _ in range(length))[:length]
    assert char_repetition(text) == pytest.approx(by_definition(text))


def test_repetition_of_words_is_measured():
    assert word_repetition(["a", "b", "c", "d", "e", "f"]) == 0
    assert word_repetition(["a", "b", "c", "d", "e", "a", "b", "c", "d", "e"]) == pytest.approx(2 / 6)
    assert word_repetition(["a", "b", "c", "d"]) == 0


def test_punctuation_of_a_short_text_is_not_judged():
    text = "one two three four five six seven eight nine ten eleven"
    assert punctuation_ratio(text, 12) == 1 and punctuation_ratio(f"{text} twelve", 12) == 0
    assert punctuation_ratio("a, b") == pytest.approx(1 / 3) and punctuation_ratio("") == 0


def test_the_measures_of_empty_texts_are_zero():
    assert measure("", WordLists(STOP, STOP, STOP, STOP)) == (0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert special_ratio("🎉 1!") == 1 and share_in([], STOP) == 0


def test_typographic_spaces_separate_words():
    assert measure("one\u2009two\u3000three\u00a0four", WordLists()).words == 4
