"""Each claim is asked about, and a text loses a point for each false one."""

import math
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.generation.judged import context_of, made, pair, rows_of, served, talk
from tests.generators.chat import Reply
from tests.generators.facts import Fact, facts_of, falsified
from tests.generators.scenes import draw_scenes
from tests.generators.truth import Truth, auc
from tests.steps.test_claims import sentences
from vlmdata.errors import RecipeError
from vlmdata.row import alive, set_column

SCENES = draw_scenes(3)


def checked(rows, scenes, answer, **parameters):
    """Divide texts at the ends of sentences, and check the claims with a server that answers."""
    with served(sentences, "claims", max_tokens=10_000) as (claims, _):
        rows = claims.run(rows, context_of(scenes))
    with served(answer, "check_claims", **parameters) as (step, server):
        return step, step.run(rows, context_of(scenes)), server.requests


def verdict(request):
    """Say no if the claim has the word false, and yes else."""
    claim = request.text.split("\n\n")[1]
    mass = 0.2 if "unclear" in claim else 0.9
    yes = 0.1 * mass if "false" in claim else 0.6 * mass
    return Reply("yes", first_token={"Yes": math.log(yes / 2), "yes": math.log(yes / 2), "No": math.log(mass - yes)})


ROWS = (
    pair(SCENES[0], "One. False two. false three.", "One. Two.", "One. false two.", origins=["a", "b"]),
    talk(SCENES[1], "q", "Right.", "q2", "false. One."),
    pair(SCENES[2], "One. Unclear unclear. false."),
    pair(SCENES[0], "none"),
)


def test_the_score_is_minus_the_number_of_false_claims():
    rows = rows_of(*ROWS[:3])
    step, done, requests = checked(rows, SCENES, verdict)
    assert done["check_claims"].to_pylist() == [[None, -1.0], [None, None, 0.0, None, -1.0], [None, None]]
    assert done["check_claims.alternatives"].to_pylist() == [[None, [0.0, -1.0]], None, None]
    assert requests == 3 + 2 + 2 + 1 + 2 + 3 and alive(done).all()
    assert step.outcomes(done) == {"accepted": 5, "undecided": 1}


def test_texts_below_the_limit_are_rejected_or_removed_and_a_new_limit_asks_nothing():
    step, done, _ = checked(rows_of(*ROWS), SCENES, verdict, min_score=0)
    assert done["reason"].to_pylist() == ["min_score", None, None, None]
    assert (done["value"].to_pylist()[0], done["threshold"].to_pylist()[0]) == (-1.0, 0.0)
    assert [text and text["drop"] for text in done["texts"].to_pylist()[1]] == [
        None,
        None,
        None,
        "check_claims",
        "check_claims",
    ]
    assert done["texts"].to_pylist()[0][1]["alternatives"] == ["One. Two."]
    assert done["claims.alternatives"].to_pylist()[0] == [None, [["One", "Two"]]]
    again = replace(step, min_score=-1).decide(checked(rows_of(*ROWS), SCENES, verdict)[1])
    assert alive(again).all()


def test_a_text_that_claims_nothing_has_no_false_claim_and_unknown_claims_give_no_score():
    with served(lambda request: "" if "cut" in request.text else "none", "claims") as (claims, _):
        rows = claims.run(rows_of(pair(SCENES[0], "hello"), pair(SCENES[0], "cut", "hello")), context_of(SCENES))
    with served(verdict, "check_claims", min_score=0) as (step, server):
        done = step.run(rows, context_of(SCENES))
    assert done["check_claims"].to_pylist() == [[None, 0.0], [None, None]] and server.requests == 0
    assert done["check_claims.alternatives"].to_pylist() == [None, [None, [0.0]]]
    assert step.outcomes(done) == {"accepted": 2, "no_claims": 1} and alive(done).all()


def test_equal_probabilities_are_a_false_claim_and_without_a_picture_nothing_is_asked():
    even = Reply("yes", first_token={"Yes": math.log(0.4), "No": math.log(0.4)})
    step, done, requests = checked(rows_of(pair(SCENES[0], "One."), talk(None, "q", "One.")), SCENES, lambda request: even)
    assert done["check_claims"].to_pylist() == [[None, -1.0], [None, None]] and requests == 1
    assert step.outcomes(done) == {"accepted": 1, "no_image": 1}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prompt": "True?"}, "check_claims.prompt needs the place {claim}"),
        ({"min_score": 1}, "check_claims.min_score must be 0 or less, such as -1"),
        ({"min_score": math.nan}, "check_claims.min_score must be 0 or less"),
    ],
)
def test_a_wrong_parameter_is_one_line_with_its_place(parameters, message):
    with pytest.raises(RecipeError, match=f"^{message}"):
        made("check_claims", **parameters).check()


def test_a_step_without_lists_of_claims_is_one_line():
    scored, step = made("vqa_score"), replace(made("check_claims"), claims_of="vqa_score")
    message = "^check_claims.claims_of: 'vqa_score' has no lists of claims. Name a step `claims`$"
    with pytest.raises(RecipeError, match=message):
        step.check_steps([scored])
    rows = rows_of(pair(SCENES[0], "a"))
    rows = set_column(rows, "vqa_score", pa.array([[0.5, None]], pa.list_(pa.float32())))
    with pytest.raises(RecipeError, match=message):
        step.run(rows, context_of(SCENES))
    made("check_claims").check_steps([made("claims")])


@pytest.mark.parametrize("error_rate", [0, 0.1, 0.2])
def test_planted_false_claims_lower_the_score_as_the_error_rate_predicts(error_rate):
    """A false claim counts with probability 1 - e, and a true one with e."""
    scenes, rng = draw_scenes(60, seed=3), np.random.default_rng(0)
    rows, false, lengths = [], [], []
    for number, scene in enumerate(scenes):
        facts = facts_of(scene)
        count = number % 3
        places = rng.permutation(len(facts))[:count]
        for place in places:
            facts[place] = falsified(facts[place], scene, random.Random(f"{number} {place}"))[0]
        rows.append(pair(scene, " ".join(fact.text() for fact in facts)))
        false.append(len(places))
        lengths.append(len({fact.text() for fact in facts}))
    _, done, _ = checked(rows_of(*rows), scenes, Truth(scenes, error_rate=error_rate).answer)
    scores = np.array([row[1] for row in done["check_claims"].to_pylist()])
    false, lengths = np.array(false), np.array(lengths)
    expected = -(false * (1 - error_rate) + (lengths - false) * error_rate)
    assert scores.mean() == pytest.approx(expected.mean(), abs=0.25 if error_rate else 0)
    area = auc(scores[false == 2].tolist(), scores[false == 0].tolist())
    assert area == 1 if error_rate == 0 else 0.5 < area < 1


def test_a_claim_that_denies_is_checked_by_the_facts():
    scene = next(one for one in SCENES if Fact(colour="blue").counted(one))
    colour = next(name for name in ("red", "green", "black", "yellow") if not Fact(colour=name).counted(scene))
    rows = rows_of(pair(scene, f"There are no {colour} objects. There are no blue objects."))
    assert checked(rows, SCENES, Truth(SCENES).answer)[1]["check_claims"].to_pylist() == [[None, -1.0]]
