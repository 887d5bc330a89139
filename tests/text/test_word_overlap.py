import pytest

from vlmdata.text.word_overlap import folded_words, shared_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A STOP sign, on the street!", {"stop", "sign", "the", "street"}),
        ("Caf\u00e9 CAFE\u0301 cafe", {"cafe"}),
        ("don\u2019t DON'T dont", {"dont"}),
        ("\uff33\uff34\uff2f\uff30 \ufb01sh", {"stop", "fish"}),  # full width, and a ligature
        ("Stra\u00dfe STRASSE", {"strasse"}),
        ("2,500 in 1980-99", {"500", "1980"}),
        ("(a) of 12", set()),
        ("\u5317\u4eac\u5927\u5b66 2024\u5e74", {*"\u5317\u4eac\u5927\u5b66\u5e74", "2024"}),
        ("\u30ab\u30d5\u30a7", set("\u30ab\u30d5\u30a7")),
        ("हिन्दी भाषा", {"हिन्दी", "भाषा"}),
        ("서울역 3번 출구입니다", {"서울역", "출구입니다"}),
        ("", set()),
    ],
)
def test_words_are_compared_without_case_accents_and_punctuation(text, words):
    assert folded_words(text) == words


def test_the_share_is_of_the_distinct_words_of_the_first_text():
    caption, picture = "Stop! A red stop sign at the corner", "STOP\nALL WAY"
    assert shared_words(caption, picture) == 1 / 5  # stop, red, sign, the, corner
    assert shared_words(picture, caption) == 1 / 3
    assert shared_words("\u51fa\u53e3 EXIT", "exit \u53e3") == 2 / 3


def test_a_text_without_words_has_no_share():
    assert shared_words("(a)", "anything") is None
    assert shared_words("anything", "") == 0
