"""The probability of yes is stored for each image, and for each alternative of its text."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.generation.judged import context_of, made, pair, rows_of, served, talk
from tests.generators.chat import Reply
from tests.generators.facts import Fact
from tests.generators.scenes import Album, draw_scenes, nlvr_scenes
from tests.generators.truth import Truth, auc, claims_of
from vlmdata.errors import RecipeError
from vlmdata.row import alive
from vlmdata.steps.min_scores import MinScores
from vlmdata.steps.top_fraction import TopFraction
from vlmdata.steps.vqa_score import PROMPT

SCENES = draw_scenes(6)


def by_word(request):
    """Return a yes whose probability is the number in the prompt, such as 0.7 in 'does it show "0.7 cats"'."""
    value = float(request.text.split('"')[1].split()[0])
    return Reply("yes", first_token={"Yes": math.log(value), "No": math.log(0.95 - value)})


def test_the_score_is_the_probability_of_yes_for_the_text_and_each_alternative():
    asked = []
    rows = rows_of(pair(SCENES[0], "0.7 cats", "0.2 dogs", "0.9 {text}"), pair(SCENES[1], "", "0.2 dogs", "0.4 dogs"))
    with served(lambda request: asked.append(request) or by_word(request), "vqa_score") as (step, _):
        done = step.run(rows, context_of(SCENES))
    score = [[pytest.approx(value), None] for value in (0.7, 0.4)]
    assert done["vqa_score"].to_pylist() == score
    assert done["vqa_score.alternatives"].to_pylist() == [
        [None, [pytest.approx(0.2), pytest.approx(0.9)]],
        [None, [pytest.approx(0.2), pytest.approx(0.4)]],
    ]
    assert PROMPT.replace("{text}", "0.9 {text}") in {request.text for request in asked}
    assert {(len(request.images), request.body["max_tokens"]) for request in asked} == {(1, 1)}
    assert step.outcomes(done) == {"accepted": 5} and alive(done).all()


def test_a_low_score_rejects_the_row_and_a_low_alternative_is_removed():
    rows = rows_of(
        pair(SCENES[0], "0.7 cats", "0.2 dogs", "0.6 dogs", origins=["a", "b"]),
        pair(SCENES[1], "0.3 cats"),
        pair(SCENES[2], "", "0.2 cats"),
    )
    with served(by_word, "vqa_score", min_score=0.5, min_alternative=0.5) as (step, server):
        done = step.run(rows, context_of(SCENES))
        assert server.requests == 5
    assert done["reason"].to_pylist() == [None, "min_score", "min_score"]
    verdicts = [(one["drop"], one["reason"]) for row in done["images"].to_pylist() for one in row if one]
    assert verdicts == [(None, None), ("vqa_score", "min_score"), ("vqa_score", "min_score")]  # as the report counts them
    assert done["value"].to_pylist() == [None, pytest.approx(0.3), pytest.approx(0.2)]
    text = done["texts"].to_pylist()[0][1]
    assert (text["alternatives"], text["origins"]) == (["0.6 dogs"], ["b"])
    assert step.outcomes(done) == {"accepted": 2, "min_score": 1, "min_alternative": 2}


def test_the_score_can_be_read_by_steps_that_compare_scores():
    rows = rows_of(*[pair(scene, f"0.{number + 1} cats") for number, scene in enumerate(SCENES)])
    with served(by_word, "vqa_score") as (step, _):
        done = step.run(rows, context_of(SCENES))
    kept = MinScores(scores={"vqa_score": 0.3}).run(done)
    assert alive(kept).tolist() == [False, False, True, True, True, True]
    assert alive(TopFraction(score="vqa_score", fraction=0.3).run(done)).tolist() == [False, False, False, False, True, True]
    assert alive(replace(step, min_score=0.6).decide(done)).tolist() == [False] * 5 + [True]


def test_an_undecided_answer_gives_no_score_and_conversations_are_not_asked_about():
    rows = rows_of(pair(SCENES[0], "a"), talk(SCENES[0], "q", "a"))
    reply = Reply("The", first_token={"The": math.log(0.6), "yes": math.log(0.3)})
    with served(lambda request: reply, "vqa_score", min_score=1) as (step, _):
        done = step.run(rows, context_of(SCENES))
    assert done["vqa_score"].to_pylist()[0] == [None, None] and alive(done).all()
    assert step.outcomes(done) == {"undecided": 1, "not_a_pair": 1}
    with pytest.raises(RecipeError, match="none of the source's first 1 rows is one"):
        step.check_rows(rows.slice(1))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"prompt": "Is it so?"}, "vqa_score.prompt needs the place {text}"),
        ({"prompt": "{text} {caption}"}, "vqa_score.prompt: nothing is known for the place {caption}"),
        ({"min_score": 2}, r"vqa_score.min_score must lie in \[0, 1\], not 2"),
        ({"min_alternative": -1}, r"vqa_score.min_alternative must lie in \[0, 1\], not -1"),
    ],
)
def test_a_wrong_parameter_is_one_line_with_its_place(parameters, message):
    with pytest.raises(RecipeError, match=f"^{message}"):
        made("vqa_score", **parameters).check()


def found_by(scenes, claims, error_rate):
    """Return precision and recall of finding false captions below 0.5, and the AUC of the scores."""
    rows = rows_of(*[pair(scene, text) for scene, text, _ in claims])
    with served(Truth(scenes, error_rate=error_rate).answer, "vqa_score", min_score=0.5) as (step, _):
        done = step.run(rows, context_of(Album(scenes).scenes))
    scores = np.array([row[0] for row in done["vqa_score"].to_pylist()])
    found, wrong = ~alive(done), np.array([not truth for *_, truth in claims])
    both = (found & wrong).sum()
    return [both / found.sum(), both / wrong.sum(), auc(scores[wrong].tolist(), scores[~wrong].tolist())]


@pytest.mark.parametrize("error_rate", [0, 0.1, 0.2])
def test_false_captions_are_found_as_often_as_the_model_is_right(error_rate):
    scenes = draw_scenes(150, seed=2)
    expected = pytest.approx([1 - error_rate] * 3, abs=0.07 if error_rate else 0)
    assert found_by(scenes, claims_of(scenes), error_rate) == expected


def test_false_captions_of_real_pictures_are_found():
    scenes = nlvr_scenes(150)
    assert found_by(scenes, claims_of(scenes), 0.1) == pytest.approx([0.9] * 3, abs=0.07)


def test_a_caption_that_denies_what_is_there_gets_a_low_score():
    red, blue = (next(scene for scene in SCENES if Fact(colour=name).counted(scene)) for name in ("red", "blue"))
    claims = [(red, "There are no red objects.", False), (blue, "There are no blue objects.", False)]
    claims += [
        (scene, "There are no black circles.", not Fact(colour="black", shape="circle").counted(scene)) for scene in SCENES
    ]
    rows = rows_of(*[pair(scene, text) for scene, text, _ in claims])
    with served(Truth(SCENES).answer, "vqa_score") as (step, _):
        done = step.run(rows, context_of(SCENES))
    assert [row[0] > 0.5 for row in done["vqa_score"].to_pylist()] == [truth for *_, truth in claims]
