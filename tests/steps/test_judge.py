"""A model rates captions and turns on axes, and what it rates too low is rejected."""

import math
from dataclasses import replace

import pytest

from tests.generation.judged import context_of, made, pair, rows_of, served, talk
from tests.generators.chat import Reply
from tests.generators.facts import Fact
from tests.generators.faults import status
from tests.generators.openai_server import OpenAIServer
from tests.generators.scenes import draw_scenes
from tests.generators.truth import Truth, auc, claims_of
from vlmdata.errors import RecipeError
from vlmdata.generation.ratings import written_grade, written_yes
from vlmdata.row import alive, set_column
from vlmdata.steps.judge import AXES, SCALES

TRUE = {"truth": "Is the answer true of the picture?"}
SCENES = draw_scenes(6)


def grades(**values):
    """Return a reply whose first token has these probabilities: `_3=0.5`."""
    return Reply("4", first_token={name.strip("_"): math.log(value) for name, value in values.items()})


def ratings(rows, name="judge.truth"):
    return rows[name].to_pylist()


def test_a_caption_and_its_alternatives_have_the_mean_grade_of_the_probabilities():
    rows = rows_of(pair(SCENES[0], "a", "b", "", "c"))
    with served(lambda request: grades(_3=0.2, _4=0.6, _5=0.1), "judge", axes=TRUE) as (step, server):
        done = step.run(rows, context_of(SCENES))
    mean = pytest.approx((3 * 0.2 + 4 * 0.6 + 5 * 0.1) / 0.9, abs=1e-4)
    assert ratings(done) == [[None, mean]] and ratings(done, "judge.truth.alternatives") == [[None, [mean, None, mean]]]
    assert server.requests == 3 and step.outcomes(done) == {"accepted": 3} and alive(done).all()


def test_each_axis_has_its_own_question_and_only_some_show_the_picture():
    asked = []
    with served(lambda request: asked.append(request) or grades(_2=0.9), "judge") as (step, _):
        done = step.run(rows_of(talk(SCENES[0], "Why {scale}?", "So.")), context_of(SCENES))
    assert {request.text: len(request.images) for request in asked} == {
        f"{rubric}\n\nQuestion: Why {{scale}}?\nAnswer: So.\n\n{SCALES['grade']}": int(name == "image_correspondence")
        for name, rubric in AXES.items()
    }
    assert step.columns_decided() == tuple(f"judge.{name}{end}" for name in AXES for end in ("", ".alternatives"))
    assert all(ratings(done, f"judge.{name}") == [[None, None, 2.0]] for name in AXES)


def test_a_turn_is_judged_with_its_question_and_the_pictures_before_it():
    asked = []
    roles = ["system", "user", "assistant", "assistant", "user", "assistant", "tool", "assistant", "user"]
    kinds = [None, None, None, '{"kind": "reasoning"}', None, None, '{"kind": "tool_call"}', None, None, None]
    row = talk(SCENES[0], "be kind", "q1", "hm", "a1", "q2", "{}", "12", "a2", "q3", roles=roles, turns=kinds)
    with served(lambda request: asked.append(request) or grades(_5=1.0), "judge", axes=TRUE) as (step, _):
        done = step.run(rows_of(row), context_of(SCENES))
    assert sorted((request.question.split("\n\n")[1], len(request.images)) for request in asked) == [
        ("Question: q1\nAnswer: a1", 1),
        ("Question: q2\nAnswer: a2", 1),
    ]
    assert ratings(done) == [[None, None, None, None, 5.0, None, None, None, 5.0, None]]
    assert step.outcomes(done) == {"accepted": 2, "no_answer": 1}


def low_if(word):
    return lambda request: grades(_1=0.9) if f"Answer: {word}" in request.text else grades(_5=0.9)


def test_a_turn_below_the_minimum_goes_with_its_question_and_the_row_with_its_last_turn():
    rows = rows_of(
        talk(SCENES[0], "q1", "bad", "q2", "good"),
        talk(SCENES[1], "rules", "q1", "bad", "q2", "bad", roles=["system", *["user", "assistant"] * 2]),
        talk(SCENES[2], "q1", "bad", "q2", roles=["user", "assistant", "user"]),
    )
    with served(low_if("bad"), "judge", axes=TRUE, min={"truth": 2}) as (step, _):
        done = step.run(rows, context_of(SCENES))
    assert done["reason"].to_pylist() == [None, "min_truth", "min_truth"]
    assert done["value"].to_pylist() == [None, 1.0, 1.0] and done["threshold"].to_pylist() == [None, 2.0, 2.0]
    dropped = [[text["drop"] for text in texts if text] for texts in done["texts"].to_pylist()]
    assert dropped == [["judge", "judge", None, None], ["judge"] * 5, ["judge"] * 3]
    assert step.outcomes(done) == {"min_truth": 4, "accepted": 1, "no_answer": 1}


def test_a_caption_below_the_minimum_is_rejected_and_an_alternative_is_removed():
    rows = rows_of(
        pair(SCENES[0], "bad", "good", "bad", origins=[None, "recaption"]),
        pair(SCENES[1], "good", "bad", "good", "bad", origins=[None, "recaption", "recaption"]),
    )
    with served(low_if("bad"), "judge", axes=TRUE, min={"truth": 2}) as (step, _):
        done = step.run(rows, context_of(SCENES))
    assert done["reason"].to_pylist() == ["min_truth", None]
    text = done["texts"].to_pylist()[1][1]
    assert (text["alternatives"], text["origins"]) == (["good"], ["recaption"])
    assert ratings(done, "judge.truth.alternatives")[1] == [None, [5.0]]
    assert step.outcomes(done) == {"min_truth": 4, "accepted": 3}


def test_an_origin_chooses_the_captions_that_are_asked_about():
    rows = rows_of(pair(SCENES[0], "raw one", "raw two", "new", origins=[None, "recaption"]))
    for origins, count in ((["recaption"], 1), (["raw"], 2), ([], 3), (["other"], 0)):
        with served(lambda request: grades(_5=1.0), "judge", axes=TRUE, origins=origins) as (step, server):
            done = step.run(rows, context_of(SCENES))
        assert server.requests == count
        assert step.outcomes(done) == ({"accepted": count} if count else {"no_text": 1})


REPLIES = {
    "empty": (Reply("", first_token={"": 0.0}), "undecided"),
    "elsewhere": (grades(_The=0.6, _5=0.4), "undecided"),
    "zero": (Reply("x", first_token={"5": -1e9}), "undecided"),
    "refusal": (Reply(None, refusal="No."), "refusal"),
}


@pytest.mark.parametrize("name", REPLIES)
def test_an_answer_without_enough_probability_is_counted_and_its_text_stays(name):
    reply, reason = REPLIES[name]
    with served(lambda request: reply, "judge", axes=TRUE, min={"truth": 5}) as (step, _):
        done = step.run(rows_of(pair(SCENES[0], "a"), talk(SCENES[1], "q", "a")), context_of(SCENES))
    assert alive(done).all() and ratings(done) == [[None, None], [None, None, None]]
    assert step.outcomes(done) == {reason: 2}


def test_rows_that_cannot_be_judged_are_counted():
    rows = rows_of(talk(None, "q", "a"), pair(SCENES[0], None), pair(SCENES[0], " "), {**pair(SCENES[0], "a"), "roles": None})
    with served(lambda request: grades(_5=1.0), "judge", axes=TRUE) as (step, server):
        done = step.run(rows, context_of(SCENES))
    assert step.outcomes(done) == {"no_image": 1, "no_text": 2, "accepted": 1} and server.requests == 1


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("4", 4.0),
        ("5/5", 5.0),
        ("five", 5.0),
        ("Rating: 3.", 3.0),
        ("**2** out of 5", 2.0),
        ("3 of five", 3.0),
        ("3,0", 3.0),
        *[(text, "unreadable") for text in ("", "good", "3 or 4", "4.5", "4.5/5", "10", "0", "6", "one or two", "15/5", "-")],
    ],
)
def test_a_written_grade_is_read_if_it_is_the_only_one(text, grade):
    found = written_grade({"failure": None, "finish": "stop", "text": text})
    assert (found if isinstance(grade, float) else found.reason) == grade


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Yes.", 1.0),
        ("**no**", 0.0),
        ("No, it does not.", 0.0),
        *[(text, "unreadable") for text in ("", "Yes and no", "Not sure", "maybe")],
    ],
)
def test_a_written_verdict_is_read_if_it_is_the_only_one(text, score):
    found = written_yes({"failure": None, "finish": "stop", "text": text})
    assert (found if isinstance(score, float) else found.reason) == score


@pytest.mark.parametrize("finish", ["length", "refusal", "filter"])
def test_an_answer_that_was_cut_or_withheld_states_no_grade(finish):
    assert written_grade({"failure": None, "finish": finish, "text": "5"}).reason == finish
    assert written_yes({"failure": "http_400", "finish": None, "text": None}).reason == "http_400"


def test_a_written_grade_needs_no_probabilities():
    with served(lambda request: "Rating: 2.", "judge", axes=TRUE, by="answer", min={"truth": 3}) as (step, _):
        done = step.run(rows_of(pair(SCENES[0], "a")), context_of(SCENES))
    assert ratings(done) == [[None, 2.0]] and done["reason"].to_pylist() == ["min_truth"]


def test_yes_or_no_is_a_share_and_a_minimum_may_change_without_a_question():
    reply = Reply("yes", first_token={"Yes": math.log(0.3), "no": math.log(0.5)})
    with served(lambda request: reply, "judge", axes=TRUE, scale="yes_no") as (step, server):
        done = step.run(rows_of(pair(SCENES[0], "a")), context_of(SCENES))
        assert ratings(done) == [[None, pytest.approx(0.375)]] and server.requests == 1
    for changed, reason in ((replace(step, min={"truth": 0.4}), "min_truth"), (replace(step, min_mass=0.9), None)):
        assert changed.decide(done)["reason"].to_pylist() == [reason]
    assert ratings(replace(step, min_mass=0.9).decide(done)) == [[None, None]]
    assert replace(step, min={"truth": 0.4}).identity() == step.identity()
    assert replace(step, axes={"truth": "Is it true?"}).identity() != step.identity()


def test_a_failed_answer_is_no_rating_and_a_retry_asks_only_for_it():
    rows, context = rows_of(pair(SCENES[0], "a", "b")), context_of(SCENES)
    with OpenAIServer(lambda request: grades(_5=1.0), faults={0: status(400)}) as server:
        step = made("judge", server.url, axes=TRUE, min={"truth": 2})
        done = step.run(rows, context)
        assert alive(done).all() and step.outcomes(done) == {"accepted": 1}
        assert step.spent(done)["failed/http_400"] == 1 and step.failed(done, ["http_400"]).tolist() == [True]
        context.again = ("http_400",)
        for name, values in step.measure(done, context).items():
            done = set_column(done, f"judge.{name}", values)
        assert server.requests == 3 and step.outcomes(step.decide(done)) == {"accepted": 2}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"axes": {}}, "judge.axes: give at least one axis"),
        ({"axes": {"a b": "x"}}, "judge.axes: 'a b' cannot be the name of a column"),
        ({"axes": {"answers": "x"}}, "judge.axes: 'answers' is the name of a column of vlmdata"),
        ({"axes": {"images": "x"}}, "judge.axes: 'images' is the name of a column of vlmdata"),
        ({"axes": {"value": "x"}}, "judge.axes: 'value' is the name of a column of vlmdata. Choose another one"),
        ({"axes": {"alternatives": "x"}}, "judge.axes: 'alternatives' is the name of a column"),
        ({"axes": {"a": " "}}, "judge.axes.a is empty"),
        ({"min": {"relevanc": 3}}, "judge.min: there is no axis 'relevanc'. Did you mean 'relevance'?"),
        ({"min": {"relevance": 0}}, r"judge.min.relevance must lie in \[1, 5\] with scale grade, not 0"),
        ({"min": {"relevance": 3}, "scale": "yes_no"}, r"judge.min.relevance must lie in \[0, 1\]"),
        ({"text_only": ["colour"]}, "judge.text_only: there is no axis 'colour'"),
        ({"prompt": "{rubric}"}, "judge.prompt needs the place {answer}"),
        ({"prompt": "{rubric} {answer} {axis}"}, "judge.prompt: nothing is known for the place {axis}"),
        ({"min_mass": 2}, r"judge.min_mass must lie in \[0, 1\], not 2"),
        ({"image_side": 1}, "judge.image_side must be 16 to 8192"),
        ({"origins": [""]}, "judge.origins has an empty name. Write raw"),
        ({"axes": {"a": "\ud800"}}, "judge.axes.a has a lone surrogate"),
    ],
)
def test_a_wrong_parameter_is_one_line_with_its_place(parameters, message):
    with pytest.raises(RecipeError, match=f"^{message}"):
        made("judge", **parameters).check()


@pytest.mark.parametrize("error_rate", [0, 0.1, 0.2])
@pytest.mark.parametrize("kind", ["captions", "turns"])
def test_false_texts_are_found_as_often_as_the_judge_is_right(error_rate, kind):
    scenes = draw_scenes(150, seed=1)
    claims = claims_of(scenes)
    if kind == "turns":
        rows = rows_of(*[_turn(*one) for one in claims])
    else:
        rows = rows_of(*[pair(scene, text) for scene, text, _ in claims])
    with served(Truth(scenes, error_rate=error_rate).answer, "judge", axes=TRUE, min={"truth": 3}) as (step, _):
        done = step.run(rows, context_of(scenes))
    scores = [next(one for one in row if one is not None) for row in ratings(done)]
    is_true = [truth for *_, truth in claims]
    found, wrong = ~alive(done), [not one for one in is_true]
    precision, recall = (found & wrong).sum() / max(found.sum(), 1), (found & wrong).sum() / sum(wrong)
    area = auc(*([score for score, one in zip(scores, is_true, strict=True) if one is wanted] for wanted in (False, True)))
    assert [precision, recall, area] == pytest.approx([1 - error_rate] * 3, abs=0 if error_rate == 0 else 0.07)


def _turn(scene, text, is_true):
    """Return a conversation that asks how many objects there are, with a true or false answer."""
    count = Fact().counted(scene) + (not is_true)
    return talk(scene, "How many objects are there?", f"{count}")


def test_a_caption_that_denies_is_judged_by_the_facts():
    scene = next(scene for scene in SCENES if not Fact(colour="red").counted(scene) and Fact(colour="blue").counted(scene))
    rows = rows_of(pair(scene, "There are no red objects."), pair(scene, "There are no blue objects."))
    with served(Truth(SCENES).answer, "judge", axes=TRUE, min={"truth": 3}) as (step, _):
        assert step.run(rows, context_of(SCENES))["reason"].to_pylist() == [None, "min_truth"]
