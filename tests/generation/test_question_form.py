"""Turns are read from the fixed form only."""

import json

import pytest

from vlmdata.generation.question_form import Turn, plain_answer, read_turns

TWO = "Question:\nWhat is it?\n===\nAnswer:\nA dog.\n===\nQuestion:\nWhere?\n===\nAnswer:\nOn a sofa.\n\nIt sleeps."
TURNS = [Turn("What is it?", "A dog."), Turn("Where?", "On a sofa.\n\nIt sleeps.")]


def test_turns_are_read_with_their_paragraphs():
    assert read_turns(TWO) == read_turns(f"\n {TWO}\n===\n\n") == (TURNS, None)


def test_texts_may_begin_behind_the_marks_and_white_space_is_cleaned():
    text = "Question:  What\tis \x00it? \r\n=====\r\nAnswer: A\u200b dog.  \n\n\n\n It  sleeps.\x1b\n===="
    assert read_turns(text) == ([Turn("What is it?", "A dog.\n\nIt sleeps.")], None)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "bad_form"),
        ("A dog sleeps on a sofa.", "bad_form"),
        ("Here you are:\nQuestion:\nWhat?\n===\nAnswer:\nA dog.", "bad_form"),
        (f"{TWO}\n===\nI hope this helps.", "bad_form"),
        ("===\n===\n===", "bad_form"),
        ("Question:\nWhat?\nAnswer:\nA dog.", "bad_form"),
        ("Question:\nWhat?\n===\nAnswer:\nA dog.\nQuestion:\nWhere?", "bad_form"),
        ("**Question:**\nWhat?\n===\nAnswer:\nA dog.", "bad_form"),
        ("Question:\nWhat?\n===\n===\nAnswer:\nA dog.", "bad_form"),
        ("Question:\nWhat?\n===\nA dog.", "bad_form"),
        ("Question:\nWhat?\n===\nQuestion:\nWhere?\n===\nAnswer:\nA dog.", "uneven"),
        ("Answer:\nA dog.", "uneven"),
        (f"{TWO}\n===\nAnswer:\nA cat.", "uneven"),
        (f"{TWO}\n===\nQuestion:\nWhy?", "uneven"),
        (f"{TWO}\n===\nQuestion:\nWhy?\n===", "uneven"),
        (f"{TWO}\n===\nQuestion:\nWhy?\n===\nAnswer:", "empty"),
        ("Question:\n \n===\nAnswer:\nA dog.", "empty"),
        ("Question:\nWhat?\n===\nAnswer:\n\u200b...\n===", "empty"),
        ("=" * 20_000, "bad_form"),
        ("=\n" * 10_000, "bad_form"),
        ("\ud800" * 100, "bad_form"),
        ("Question:\n===\nAnswer:\n===", "empty"),
    ],
)  # fmt: skip
def test_everything_else_is_a_fault(text, fault):
    assert read_turns(text) == ([], fault)


def test_a_mark_within_a_line_is_text():
    text = "Question:\nWhat does the sign say?\n===\nAnswer:\nIt says Question: and === and Answer: in red."
    assert read_turns(text)[0][0].answer == "It says Question: and === and Answer: in red."


@pytest.mark.parametrize(
    "end", ["", "Quest", "Question:\nWhy", "Question:\nWhy?\n===\nAns", "Question:\nWhy?\n===\nAnswer:\nBec"]
)
def test_of_a_cut_text_the_turns_before_the_last_are_kept(end):
    found = read_turns(f"{TWO}\n===\n{end}", is_cut=True)
    assert found == (TURNS, "length")


def test_a_cut_text_without_a_separator_loses_its_last_turn():
    assert read_turns(TWO, is_cut=True) == (TURNS[:1], "length")


def test_the_same_turns_are_read_from_json():
    tree = {"turns": [{"question": one.question, "answer": one.answer} for one in TURNS], "more": 1}
    assert read_turns(json.dumps(tree, indent=1)) == (TURNS, None)
    assert plain_answer(json.dumps({"turns": tree["turns"][:1]})) == ("A dog.", None)
    assert plain_answer(json.dumps(tree)) == ("", "bad_form")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"turns": []}', "bad_form"),
        ('{"turns": {"question": "a", "answer": "b"}}', "bad_form"),
        ('{"turns": [{"question": "a"}]}', "bad_form"),
        ('{"turns": [{"question": "a", "answer": {"answer": "b"}}]}', "bad_form"),
        ('{"turns": [{"question": "a", "answer": " "}]}', "empty"),
        ('{"turns": [{"question": "a", "answer": "\\ud800"}]}', "empty"),
        ('{"turns": [', "bad_form"),
        ('{"a":' * 100_000, "bad_form"),
        ('{"turns": ' + "[" * 100_000, "bad_form"),
        ("{" * 9, "bad_form"),
    ],
)  # fmt: skip
def test_other_json_is_a_fault(text, fault):
    assert read_turns(text) == ([], fault)
    assert plain_answer(text) == ("", fault)


def test_a_cut_json_has_no_turns():
    assert read_turns('{"turns": [{"question": "a", "answer": "b"}', is_cut=True) == ([], "length")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (" A dog \x07 sleeps.\r\n\r\n\r\nIt is brown. ", ("A dog sleeps.\n\nIt is brown.", None)),
        ("Answer:\nA dog sleeps.", ("", "bad_form")),
        ("A dog\n===", ("", "bad_form")),
        ("?!", ("", "empty")),
        ("", ("", "empty")),
    ],
)
def test_a_plain_answer_has_no_marks(text, found):
    assert plain_answer(text) == found
