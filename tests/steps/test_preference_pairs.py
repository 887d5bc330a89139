"""Pairs of answers are made from scores, and their lengths are balanced."""

import json

import numpy as np
import pyarrow as pa
import pytest

from tests.generation.judged import image_of, made, pair, rows_of, talk
from tests.generators.scenes import draw_scenes
from tests.rows import document
from vlmdata.errors import RecipeError
from vlmdata.generation.preferences import SHARES, Pair, ScoredText, drawn_pairs, most_shorter
from vlmdata.row import alive, set_column
from vlmdata.steps.preference_pairs import PreferencePairs

SCENES = draw_scenes(2)


def scored(rows, own, others):
    kind = pa.list_(pa.float32())
    rows = set_column(rows, "check_claims", pa.array(own, kind))
    return set_column(rows, "check_claims.alternatives", pa.array(others, pa.list_(kind)))


def preferences(rows):
    return [json.loads(extra or "{}").get("preferences") for extra in rows["extra"].to_pylist()]


def said(message):
    return [part.get("text", part["type"]) for part in message["content"]]


def test_a_pair_has_the_prompt_and_both_answers_as_messages():
    rows = scored(rows_of(pair(SCENES[0], "raw", "good one", "bad one")), [[None, None]], [[None, [0.0, -2.0]]])
    rows = set_column(rows, "extra", pa.array(['{"id": 7}']))
    done = PreferencePairs().run(rows)
    text = {"type": "text", "text": "Describe the picture."}
    assert json.loads(done["extra"].to_pylist()[0]) == {
        "id": 7,
        "preferences": [
            {
                "prompt": [{"role": "user", "content": [{"type": "image"}, text]}],
                "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "good one"}]}],
                "rejected": [{"role": "assistant", "content": [{"type": "text", "text": "bad one"}]}],
                "chosen_score": 0.0,
                "rejected_score": -2.0,
                "images": 1,
            }
        ],
    }


def test_a_pair_of_a_later_turn_has_the_messages_before_it():
    row = talk(SCENES[0], "q1", "a1", "q2", "a2")
    row["texts"][4]["alternatives"] = ["other a2"]
    rows = scored(rows_of(row), [[None, None, 0.0, None, -1.0]], [[None, None, None, None, [0.0]]])
    ((one,),) = preferences(PreferencePairs(balance=False).run(rows))
    assert [(message["role"], said(message)) for message in one["prompt"]] == [
        ("user", ["image", "q1"]),
        ("assistant", ["a1"]),
        ("user", ["q2"]),
    ]
    assert (said(one["chosen"][0]), said(one["rejected"][0]), one["images"]) == (["other a2"], ["a2"], 1)


@pytest.mark.parametrize(
    ("parts", "roles", "kinds", "place", "shown"),
    [
        (["?", "q", "a", "?"], ["user", "user", "assistant", "assistant"], [None] * 4, 2, [("user", ["image", "q"])]),
        (
            ["q", "{}", "?", "12", "a"],
            ["user", "assistant", "tool", "tool", "assistant"],
            [None, "tool_call", None, None, None],
            4,
            [("user", ["q", "image"])],
        ),
        (
            ["q", "hm", "a", "?", "q2", "b"],
            ["user", "assistant", "assistant", "tool", "user", "assistant"],
            [None, "reasoning", None, None, None, None],
            5,
            [("user", ["q"]), ("assistant", ["a"]), ("user", ["image", "q2"])],
        ),
    ],
)
def test_the_prompt_shows_as_many_images_as_the_pair_names(parts, roles, kinds, place, shown):
    turns = [kind and json.dumps({"kind": kind}) for kind in kinds]
    row = {**document(*[image_of(SCENES[0]) if part == "?" else part for part in parts]), "roles": roles, "turns": turns}
    row["texts"][place]["alternatives"] = ["other"]
    at = [None] * place
    rows = scored(rows_of(row), [[*at, 0.0, *[None] * (len(parts) - place - 1)]], [[*at, [-1.0]]])
    ((one,),) = preferences(PreferencePairs(balance=False).run(rows))
    assert [(message["role"], said(message)) for message in one["prompt"]] == shown and one["images"] == 1


def test_rows_without_a_pair_are_rejected_with_the_reason_or_stay():
    rows = rows_of(*[pair(SCENES[0], "a b c d", "e f g h") for _ in range(3)], pair(SCENES[1], "x", "a b c d e f g h"))
    own = [[None, 0.0], [None, 0.0], [None, None], [None, 0.0]]
    rows = scored(rows, own, [[None, [-1.0]], [None, [-0.5]], [None, [0.0]], [None, [-1.0]]])
    done = PreferencePairs().run(rows)
    assert done["reason"].to_pylist() == [None, "min_gap", "no_scores", "balance"]
    assert done["value"].to_pylist() == [None, 0.5, None, 0.875] and done["threshold"].to_pylist()[3] == pytest.approx(0.86)
    done = PreferencePairs(require=False, balance=False).run(rows)
    assert alive(done).all() and [bool(one) for one in preferences(done)] == [True, False, False, True]


def test_at_most_two_pairs_are_drawn_by_a_hash_and_texts_are_not_repeated():
    texts = [ScoredText(f"text {number}", -float(number % 3)) for number in range(10)]
    pairs = drawn_pairs([*texts, texts[0]], 1, 2, "a")
    assert pairs == drawn_pairs([*texts, texts[0]], 1, 2, "a") != drawn_pairs(texts, 1, 2, "b")
    assert len(pairs) == 2 and len({one.text for two in pairs for one in two}) == 4
    assert all(chosen.score - rejected.score >= 1 for chosen, rejected in pairs)
    assert drawn_pairs(texts[:2], 1, 2, "a") == [Pair(texts[0], texts[1])]
    assert len(drawn_pairs(texts[:3], 1, 2, "a")) == 2, "with too few texts, one may be in two pairs"
    assert drawn_pairs(texts[:1], 1, 2, "a") == [] and drawn_pairs(texts, 3, 2, "a") == []


def test_ten_thousand_answers_to_a_question_make_pairs_of_some_and_of_the_ends():
    texts = [ScoredText(f"text {number}", 0.0) for number in range(10_000)]
    assert drawn_pairs(texts, 1, 2, "a") == []
    better = ScoredText("better", 1.0)
    pairs = drawn_pairs([*texts, better], 1, 2, "a")
    assert len(pairs) == 2 and all(pair.chosen == better for pair in pairs)
    assert len(drawn_pairs([ScoredText(f"{n}", float(n % 2)) for n in range(10_000)], 1, 20, "a")) == 20


def test_the_share_makes_the_mean_lengths_as_equal_as_possible():
    rng = np.random.default_rng(0)
    rejected = rng.integers(20, 60, 2000).astype(float)
    chosen = np.round(rejected * rng.uniform(0.4, 1.3, 2000))
    share = most_shorter(chosen, rejected)
    kept = (rejected - chosen) / rejected <= share
    before, after = (abs(chosen[some].mean() - rejected[some].mean()) for some in (np.ones(2000, bool), kept))
    assert after < before / 10 and 0 < share < 1
    assert all(
        abs(chosen[other].mean() - rejected[other].mean()) >= after
        for r in SHARES
        if (other := np.round((rejected - chosen) / rejected, 9) <= r).any()
    )
    assert most_shorter(rejected + 5, rejected) == 1 and most_shorter(np.array([1.0]), np.array([10.0])) == 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min_gap": 0}, "preference_pairs.min_gap must be above 0, not 0"),
        ({"pairs": 0}, "preference_pairs.pairs must be at least 1, not 0"),
    ],
)
def test_a_wrong_parameter_is_one_line_with_its_place(parameters, message):
    with pytest.raises(RecipeError, match=f"^{message}"):
        PreferencePairs(**parameters).check()


def test_a_column_without_a_number_for_each_text_is_one_line():
    rows = rows_of(pair(SCENES[0], "a", "b"))
    kind = pa.list_(pa.list_(pa.string()))
    rows = set_column(rows, "claims", pa.array([[None, ["x"]]], kind))
    rows = set_column(rows, "claims.alternatives", pa.array([[None, [["y"]]]], pa.list_(kind)))
    step = PreferencePairs(score="claims")
    for refused in (lambda: step.decide(rows), lambda: step.check_steps([made("claims")])):
        with pytest.raises(RecipeError, match=r"^preference_pairs\.score: 'claims' does not have one number for each text"):
            refused()
    PreferencePairs(score="judge.relevance").check_steps([made("claims"), made("judge")])
