"""Paragraphs are judged by OBELICS's measures."""

import warnings

import pytest

from tests.rows import document, table
from vlmdata.step import RecipeError
from vlmdata.steps.paragraph_quality import ParagraphQuality

GOOD = "The quick brown fox jumps over the lazy dog, and the dog sleeps again in the warm sun. It was a long day!"
IMAGE = {"url": "http://ex.com/a.jpg"}


def verdicts(rows) -> list:
    return [[text and text["reason"] for text in row["texts"]] for row in rows.to_pylist()]


def test_the_first_broken_rule_is_the_reason():
    bad = [
        ("It was three.", "min_words"),
        ("it was so " * 340, "max_words"),
        ("and then it was and then it was and then it was and then", "max_char_repetition"),
        ("(it) [is] {as} <we> *had* ~it~ #so +on+ =as= we $do, or: am", "max_special"),
        ("Cheap watches shoes bags belts jackets sunglasses, worldwide shipping!", "min_stop_words"),
        ("it is what it is and we are where we are with what we have had", "min_punctuation"),
        ("END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED", None),
        (GOOD, None),
    ]
    rows = table([document(*(text for text, _ in bad), IMAGE)])
    assert verdicts(ParagraphQuality().run(rows)) == [[*(reason for _, reason in bad), None]]


def test_a_document_whose_last_paragraph_is_dropped_is_dropped_too():
    rows = ParagraphQuality().run(table([document("Short one.", IMAGE), document(GOOD, "Short one.", IMAGE)])).to_pylist()
    assert [(row["drop"], row["reason"], row["value"]) for row in rows] == [
        ("paragraph_quality", "min_words", 2.0),
        (None, None, None),
    ]


def test_word_lists_turn_rules_on_and_missing_lists_are_reported(tmp_path):
    (tmp_path / "spam.txt").write_text("fox\ndog\n")
    with pytest.warns(UserWarning, match="these rules have no word list and are off: flagged_words, common_words, spam_words"):
        ParagraphQuality().check()
    step = ParagraphQuality(spam_words=str(tmp_path / "spam.txt"))
    rows = step.run(table([document(GOOD, "And the weather was as good as it had been on the day before.")]))
    assert verdicts(rows) == [["max_spam_words", None]]
    assert step.identity() != ParagraphQuality().identity()
    with pytest.raises(RecipeError, match=r"paragraph_quality: the word list nowhere\.txt cannot be read"):
        ParagraphQuality(common_words="nowhere.txt").check()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = dict.fromkeys(("flagged_words", "common_words", "spam_words"), str(tmp_path / "spam.txt"))
        ParagraphQuality(**names).check()


def test_a_changed_threshold_needs_no_new_measurement():
    rows = ParagraphQuality().run(table([document(GOOD, "It was only four words.")]))
    kept = ParagraphQuality(min_words=5, label="paragraph_quality").decide(rows)
    dropped = ParagraphQuality(min_words=6, label="paragraph_quality").decide(rows)
    assert (verdicts(kept), verdicts(dropped)) == ([[None, None]], [[None, "min_words"]])


def test_measures_equal_to_a_threshold_pass():
    ten = "Because everybody should understand whatever these others themselves were saying, somebody."
    rows = ParagraphQuality(min_words=11, max_words=11).run(table([document(ten)]))
    assert verdicts(rows) == [[None]]
