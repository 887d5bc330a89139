"""Turns of an answer are accepted, or rejected with the reason."""

import pytest

from vlmdata.generation.captions import MOST_CHARS, REFUSALS
from vlmdata.generation.instruct_prompts import CONVERSATION, DETAIL, EXAMPLES, KINDS, REASONING
from vlmdata.generation.object_claims import KnownObjects
from vlmdata.generation.question_form import Turn
from vlmdata.generation.turns import SOURCE_WORDS, UNSURE, TurnRules, judged, runs_of
from vlmdata.text.object_names import ObjectNames

COPY = "The copper kettle sings on a stove that nobody ever lights at noon."
RULES = TurnRules(REFUSALS, SOURCE_WORDS, UNSURE, 0.3, runs_of([COPY]))
KNOWN = KnownObjects(["A dog sleeps on a sofa."], ["dog", "dog", "couch"], ObjectNames())


def answer(text, finish="stop", failure=None):
    return {"text": text, "finish": finish, "failure": failure}


def talk(*turns):
    return "\n".join(f"Question:\n{question}\n===\nAnswer:\n{said}\n===" for question, said in turns)


def reasons(text, kind=CONVERSATION, finish="stop", known=KNOWN):
    found = judged(kind, answer(text, finish), "Describe it.", known, RULES, set())
    return [one.rejection and one.rejection.reason for one in found]


def test_a_conversation_has_its_turns_and_a_description_gets_the_question():
    found = judged(CONVERSATION, answer(talk(("What is it?", "A dog."), ("Where?", "On a sofa."))), "", KNOWN, RULES, set())
    assert [one.turn for one in found] == [Turn("What is it?", "A dog."), Turn("Where?", "On a sofa.")]
    found = judged(DETAIL, answer("A dog sleeps.\n\nIt is on a sofa."), "Describe it.", KNOWN, RULES, set())
    assert [tuple(one) for one in found] == [(DETAIL, Turn("Describe it.", "A dog sleeps.\n\nIt is on a sofa."), None)]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("I'm sorry, but I cannot help with this.", "refusal"),
        ("The caption says that a dog sleeps.", "source_words"),
        ("Two Bounding Boxes show dogs.", "source_words"),
        ("According to the sentences, a dog sleeps.", "source_words"),
        ("A dog is at [0.123, 0.4, 0.5, 0.6].", "coordinates"),
        ("A dog begins at 0.123 of the width.", "coordinates"),
        ("Its name cannot be determined.", "unsure"),
        ("It’s hard to tell.", "unsure"),
        ("a dog on a sofa and " * 9, "max_repeats"),
        ("A cat sleeps.", "absent_object"),
        ("There are four dogs.", "wrong_count"),
        ("It looks like <image>.", "placeholder"),
        ("It scored 12.5 points in 0.12 seconds, and 1.50 euros (3.50).", None),
        ("A dog is described as calm, and captioning is a word.", None),
    ],
)
def test_a_turn_alone_is_rejected(said, reason):
    assert reasons(talk(("Where?", "On a sofa."), ("What then?", said), ("What sleeps?", "A dog."))) == [None, reason, None]
    assert reasons(talk(("Why so?", said)), REASONING) == [reason]
    assert reasons(said, DETAIL) == [reason]


@pytest.mark.parametrize("question", ["What does the caption say?", "What is at [0.123, 0.456]?", "Where is the cat?"])
def test_a_question_may_be_the_reason(question):
    assert reasons(talk((question, "There."), ("What sleeps?", "A dog.")))[0] in (
        "source_words",
        "coordinates",
        "absent_object",
    )


def test_a_text_of_an_example_rejects_all_turns_of_its_answer():
    assert (
        reasons(talk(("What sleeps?", "A dog."), ("And?", "So the copper kettle sings on a shelf that nobody uses.")))
        == [None] * 2
    )
    assert reasons(talk(("What sleeps?", "A dog."), ("And?", COPY))) == ["copied", "copied"]


def test_a_question_that_refers_back_to_a_rejected_turn_is_rejected_too():
    turns = (
        ("What is there?", "A cat."),
        ("What is it doing?", "Sleeping."),
        ("How does it look?", "Calm."),
        ("Where?", "Here."),
    )
    assert reasons(talk(*turns)) == ["absent_object", "refers_back", "refers_back", None]


def test_a_question_that_was_asked_about_the_row_is_a_duplicate():
    assert reasons(talk(("What sleeps?", "A dog."), ("WHAT sleeps?", "The dog."))) == [None, "duplicate"]
    asked = {"describe it."}
    assert judged(DETAIL, answer("A dog."), "Describe it.", KNOWN, RULES, asked)[0].rejection.reason == "duplicate"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("", "stop", {DETAIL: "empty"}),
        ("I cannot see the picture.", "stop", dict.fromkeys(KINDS, "refusal")),
        ("\n “I’m unable to help.", "stop", dict.fromkeys(KINDS, "refusal")),
        ("No.", "refusal", dict.fromkeys(KINDS, "refusal")),
        (None, "filter", dict.fromkeys(KINDS, "filter")),
        ("Question:\nWhat?", "stop", {CONVERSATION: "uneven", REASONING: "uneven"}),
        ("Question:\nWhat?\n===\nAnswer:\n", "stop", {CONVERSATION: "empty", REASONING: "empty"}),
        ("x" * 100_000, "stop", dict.fromkeys(KINDS, "too_long")),
        ("x" * 100_000, "length", dict.fromkeys(KINDS, "too_long")),
        ("===\n" * 4_000, "stop", {}),
        ('{"turns":' * 2_000, "stop", {}),
        ('{"turns":[' * 2_000, "length", dict.fromkeys(KINDS, "length")),
        ("A dog sl", "length", dict.fromkeys(KINDS, "length")),
        ("A dog\nsl", "length", {DETAIL: "length"}),
        ("Question:\nWhat?\n===\nAnswer:\nA d", "length", dict.fromkeys(KINDS, "length")),
    ],
)
def test_an_answer_that_cannot_be_read_counts_once(kind, text, finish, reason):
    assert reasons(text, kind, finish) == [reason.get(kind, "bad_form")]


def test_a_failed_answer_has_its_failure():
    found = judged(DETAIL, answer(None, None, "http_400"), "Describe it.", KNOWN, RULES, set())
    assert [(one.turn, one.rejection.reason) for one in found] == [(None, "http_400")]


def test_a_cut_conversation_keeps_its_whole_turns():
    text = talk(("What sleeps?", "A dog."), ("Where?", "On a sofa.")) + "\nQuestion:\nWhy d"
    assert reasons(text, finish="length") == [None, None, "length"]
    assert reasons(text, REASONING, "length") == ["length"]


def test_reasoning_is_one_question():
    assert reasons(talk(("What?", "A dog."), ("Where?", "On a sofa.")), REASONING) == ["bad_form"]


@pytest.mark.parametrize(
    "said",
    [
        "\ud800\udfff",
        "\u200b" * 50,
        "\x00\x1b[31m",
        "\u202e" * 9,
        "e\u0301" * 999,
        "Answer" * 99,
        "犬" * 5_000,
        "<|im_end|>",
        "]]>",
    ],
)
def test_hostile_texts_are_judged_without_an_error(said):
    for kind in KINDS:
        for text in (said, talk((said, said)), f"Question: {said}\n===\nAnswer: {said}"):
            assert all(one.turn or one.rejection for one in judged(kind, answer(text), "Describe it.", KNOWN, RULES, set()))


def test_the_question_of_a_description_is_not_judged_because_the_user_wrote_it():
    found = judged(DETAIL, answer("A dog sleeps."), "Give a description of the cat.", KNOWN, RULES, set())
    assert found[0].rejection is None


def test_values_and_limits_are_noted():
    found = judged(DETAIL, answer("There are four dogs."), "Describe it.", KNOWN, RULES, set())
    assert tuple(found[0].rejection) == ("wrong_count", 4.0, 2.0)
    assert tuple(judged(DETAIL, answer("a" * 20_001), "", KNOWN, RULES, set())[0].rejection) == ("too_long", 20_001, MOST_CHARS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_examples_are_accepted_by_the_shipped_rules(kind):
    rules = TurnRules(REFUSALS, SOURCE_WORDS, UNSURE, 0.3, frozenset())
    for given, text in EXAMPLES[kind]:
        captions, _, boxes = given.partition("\n\nObjects:\n")
        known = KnownObjects(captions.splitlines(), [line.partition(":")[0] for line in boxes.splitlines()], ObjectNames())
        found = judged(kind, answer(text), "Describe it.", known, rules, set())
        assert found and all(one.rejection is None for one in found)
