"""The probabilities of words are summed from those of the tokens with which an answer may begin."""

import math

import pyarrow as pa
import pytest

from tests.generators.chat import Reply
from tests.generators.openai_server import OpenAIServer
from tests.generators.opened import answers, asking, prompts
from vlmdata.errors import GeneratorStopped
from vlmdata.generator import ANSWERS, Answer, Prompt, Sampling
from vlmdata.models.first_token import choice_of, chosen
from vlmdata.row import conform_array

GRADES = ("1", "2", "3", "4", "5")


@pytest.mark.parametrize("token", ["Yes", " yes", "YES.", "\u2581Yes", "\u0120yes", "**Yes", "\nYe", "y"])
def test_a_token_counts_for_a_word_in_any_case_and_with_blanks_and_signs(token):
    assert choice_of(token, ("yes", "no")) == 0


@pytest.mark.parametrize("token", ["", " ", ".", "maybe", "yesterday", "<think>", "none", "Yes no"])
def test_a_token_of_another_word_counts_for_none(token):
    assert choice_of(token, ("yes", "no")) is None


def test_the_start_of_two_words_counts_for_none_and_a_whole_word_for_itself():
    assert [choice_of(token, ("no", "not", "other")) for token in ("n", "no", "not", "ot")] == [None, 0, 1, 2]
    assert [choice_of(token, GRADES) for token in ("4", " 5.", "6", "45")] == [3, 4, None, None]


def test_probabilities_of_tokens_for_one_word_are_added_and_the_text_is_the_best_word():
    tokens = [("Yes", 0.4), (" yes", 0.2), ("No", 0.3), ("Maybe", 0.1)]
    answer = chosen(tokens, ("yes", "no"), Answer(tokens=1, prompt_tokens=9, seconds=0.5))
    assert answer.text == "yes" and answer.finish == "stop" and answer.prompt_tokens == 9
    assert answer.probabilities == pytest.approx((0.6, 0.3))
    assert chosen([("Hm", 1.0)], ("yes", "no"), Answer()).text == ""


def first(**options: float) -> OpenAIServer:
    return OpenAIServer(lambda request: Reply("Yes", first_token={name: math.log(value) for name, value in options.items()}))


def asked() -> Prompt:
    return Prompt("Is it red?", choices=("yes", "no"), seed=3)


def test_openai_asks_for_one_token_with_its_alternatives(tmp_path):
    bodies = []
    server = first(Yes=0.5, yes=0.2, No=0.25)
    answer = server.answer
    server.answer = lambda request: bodies.append(request.body) or answer(request)
    options = {"extra_body": {"top_logprobs": 5}}
    with asking(tmp_path, server, **options) as (_, endpoint):
        plain, one = answers(endpoint, [*prompts("a"), asked()], Sampling(50, 0.3, 0.5))
    assert plain.probabilities is None and plain.text == "Yes"
    assert one.probabilities == pytest.approx((0.7, 0.25)) and (one.text, one.finish, one.failure) == ("yes", "stop", None)
    names = ("max_tokens", "temperature", "top_p", "logprobs", "top_logprobs")
    found = sorted([[body.get(name) for name in names] for body in bodies], key=str)
    assert found == [[1, 1.0, 1.0, True, 5], [50, 0.3, 0.5, None, None]]


def test_an_endpoint_without_logprobs_stops_the_run_with_the_reason(tmp_path):
    """The server takes logprobs for an unknown field, as many do."""
    server = OpenAIServer(lambda request: request.body.pop("logprobs", None) and "Yes")
    said = r"no_probabilities \(\"the answer has no logprobs\"\)"
    with asking(tmp_path, server, stop_after_failures=2) as (_, endpoint), pytest.raises(GeneratorStopped, match=said):
        answers(endpoint, [asked()] * 3)


@pytest.mark.parametrize("values", [{"Yes": math.nan}, {"Yes": 0.5}, {"Yes": -0.1, "No": -0.1}, {"Yes": True}])
def test_numbers_that_are_no_probabilities_are_malformed(tmp_path, values):
    with asking(tmp_path, OpenAIServer(lambda request: Reply("Yes", first_token=values))) as (_, endpoint):
        (one,) = answers(endpoint, [asked()])
    assert (one.failure, one.probabilities) == ("malformed", None)


def test_a_refusal_has_no_probabilities(tmp_path):
    with asking(tmp_path, OpenAIServer(lambda request: Reply(None, refusal="No."))) as (_, endpoint):
        (one,) = answers(endpoint, [asked()])
    assert (one.finish, one.probabilities) == ("refusal", None)


def test_answers_that_an_earlier_version_stored_have_no_probabilities():
    kind = ANSWERS.value_type
    old = [one for one in kind if one.name != "probabilities"]
    array = conform_array(pa.array([[{"text": "a", "finish": "stop"}], None], pa.list_(pa.struct(old))), ANSWERS)
    assert array.type == ANSWERS and array.to_pylist()[0][0]["probabilities"] is None
