"""Texts are divided into claims by a model, and lists that are not usable are counted."""

import pytest

from tests.generation.judged import context_of, made, pair, rows_of, served, talk
from tests.generators.chat import Reply
from tests.generators.scenes import draw_scenes
from vlmdata.errors import RecipeError
from vlmdata.generation.captions import Rejection
from vlmdata.generation.claims import claims_in

SCENES = draw_scenes(2)


def sentences(request):
    """Return each sentence of the answer in the prompt on a line."""
    return "\n".join(part.strip() for part in request.text.partition("\nAnswer: ")[2].split(".") if part.strip())


def test_each_text_alternative_and_answer_gets_its_list_at_its_position():
    asked = []
    rows = rows_of(
        pair(SCENES[0], "A cat. A dog.", "A cow.", origins=["recaption"]),
        talk(SCENES[1], "Who?", "Ann. Bob.", "Where?", " "),
        pair(SCENES[0], ""),
    )
    with served(lambda request: asked.append(request) or sentences(request), "claims") as (step, _):
        done = step.run(rows, context_of(SCENES))
    assert done["claims"].to_pylist() == [[None, ["A cat", "A dog"]], [None, None, ["Ann", "Bob"], None, None], [None, None]]
    assert done["claims.alternatives"].to_pylist() == [[None, [["A cow"]]], None, None]
    assert step.outcomes(done) == {"accepted": 3, "no_answer": 1, "no_text": 1}
    assert not any(request.images for request in asked)
    assert {request.text.partition("\n\nQuestion: ")[2] for request in asked} == {
        "Describe the picture.\nAnswer: A cat. A dog.",
        "Describe the picture.\nAnswer: A cow.",
        "Who?\nAnswer: Ann. Bob.",
    }


def test_a_long_text_is_sent_whole():
    """RLAIF-V's released code cuts the prompt at 300 words, so that later claims are never checked."""
    text = " ".join(f"Thing {number} is red." for number in range(2000))
    with served(sentences, "claims", max_claims=2000, max_tokens=100_000) as (step, _):
        done = step.run(rows_of(pair(SCENES[0], text)), context_of(SCENES))
    assert done["claims"].to_pylist()[0][1] is None and step.outcomes(done) == {"too_long": 1}
    with served(lambda request: "it ends" if text in request.text else "", "claims") as (step, _):
        assert step.run(rows_of(pair(SCENES[0], text)), context_of(SCENES))["claims"].to_pylist() == [[None, ["it ends"]]]


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("A cat sits.\n\n  A dog runs. \n", ["A cat sits.", "A dog runs."]),
        ("Here are the claims:\n1. A cat\n2) A dog\n(3) a CAT\n10. 3 birds", ["A cat", "A dog", "3 birds"]),
        ("**Claims:**\n- **A cat**\n\u2022 a dog\n* 'x'\n---", ["**A cat**", "a dog", "'x'"]),
        ("None.", []),
        ("2 cats\n2020 was good", ["2 cats", "2020 was good"]),
        ("a claim:", ["a claim:"]),
        ("", "empty"),
        ("---\n**", "empty"),
        ("I'm sorry, I cannot see it.", "refusal"),
        ("x" * 1001, "too_long"),
        ("x\n" * 11_000, "too_long"),
        ("\n".join(map(str, range(6))), "too_many"),
    ],
)
def test_lines_are_claims_without_numbers_bullets_and_repetitions(text, claims):
    found = claims_in({"failure": None, "finish": "stop", "text": text}, 5)
    assert (found.reason if isinstance(found, Rejection) else found) == claims


@pytest.mark.parametrize("reply", [Reply("A cat\nA d", "length"), Reply(None, refusal="No.")])
def test_a_list_that_was_cut_or_refused_is_not_used(reply):
    with served(lambda request: reply, "claims") as (step, _):
        done = step.run(rows_of(pair(SCENES[0], "a")), context_of(SCENES))
    assert done["claims"].to_pylist() == [[None, None]] and set(step.outcomes(done)) <= {"length", "refusal"}
    assert step.failed(done, ["length"]).tolist() == [False]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prompt": "Claims?"}, "claims.prompt needs the place {answer}"),
        ({"prompt": "{answer} {text}"}, "claims.prompt: nothing is known for the place {text}"),
        ({"max_claims": 0}, "claims.max_claims must be 1 to 10,000, not 0"),
    ],
)
def test_a_wrong_parameter_is_one_line_with_its_place(parameters, message):
    with pytest.raises(RecipeError, match=f"^{message}"):
        made("claims", **parameters).check()
