"""The probabilities that the server sends are those of the model for each token, in the form of OpenAI's API."""

import json
from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast

from bench.inputs.tars import jpeg
from tests.train.families import tokenizer_of
from tests.train.shards import drawing
from tests.train.tiny import tiny_model
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.data.prompts import Prompter
from vlmdata_train.model.decoding import Decoding
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.tokens import byte_tokenizer
from vlmdata_train.serving.engine import Engine
from vlmdata_train.serving.generation import Answer, Asked, answer_together
from vlmdata_train.serving.logprobs import ScoredToken, logprobs_document, scored
from vlmdata_train.serving.prompting import context_of
from vlmdata_train.serving.refused import Refused

pytestmark = pytest.mark.whole

RED = jpeg(drawing("red", "circle"))


@pytest.fixture
def model() -> VisionLanguageModel:
    return tiny_model()


@pytest.fixture
def prompter(model: VisionLanguageModel) -> Prompter:
    return prompter_of(model)


def answers(model: VisionLanguageModel, prompter: Prompter, asked: list[Asked]) -> list[Answer]:
    found: dict[int, Answer] = {}
    answer_together(model, prompter, asked, found.__setitem__)
    return [found[number] for number in range(len(asked))]


def requests(prompter: Prompter, alternatives: int | None = 20) -> list[Asked]:
    """Return requests of different lengths, greedy and drawn, with and without an image."""
    ways = [Decoding(), Decoding(temperature=1.0, seed=1), Decoding(temperature=3.0, top_p=0.5, seed=2)]
    return [
        Asked(prompter.beginning([RED][: number % 2], "a picture " * (1 + number)), ways[number % 3], 5, (), alternatives)
        for number in range(6)
    ]


def test_each_probability_is_that_of_the_model_for_the_text_before_the_token(
    model: VisionLanguageModel, prompter: Prompter
) -> None:
    """The first token of a prompt that has the answer's first tokens at its end, greedily, has the same alternatives."""
    asked = requests(prompter)
    found = answers(model, prompter, asked)
    for one, answer in zip(asked, found, strict=True):
        assert answer.scored is not None and 0 <= len(answer.scored) - answer.tokens <= 1
        for place, token in enumerate(answer.scored):
            said = [before.token for before in answer.scored[:place]]
            prompt = replace(
                one.prompt, input_ids=[*one.prompt.input_ids, *said], labels=[*one.prompt.labels, *[-100] * len(said)]
            )
            (alone,) = answers(model, prompter, [Asked(prompt, Decoding(), 1, (), 300)])
            assert alone.scored is not None
            shares = dict(alone.scored[0].top)
            assert sum(torch.tensor(list(shares.values())).exp()) == pytest.approx(1, abs=1e-5)
            assert_close(token.logprob, shares[token.token], rtol=0, atol=1e-5)
            assert_close([value for _, value in token.top], [shares[other] for other, _ in token.top], rtol=0, atol=1e-5)
            assert_close([value for _, value in token.top], sorted(shares.values(), reverse=True)[:20], rtol=0, atol=1e-5)


def test_probabilities_do_not_depend_on_the_batch_and_change_no_answer(model: VisionLanguageModel, prompter: Prompter) -> None:
    asked = requests(prompter)
    together = answers(model, prompter, asked)
    mixed = answers(model, prompter, [*requests(prompter, None)[:3], *asked[3:]])
    assert [replace(one, scored=None) for one in together] == answers(model, prompter, requests(prompter, None))
    assert [one.scored is None for one in mixed] == [True] * 3 + [False] * 3
    for one, answer in zip(asked, together, strict=True):
        (alone,) = answers(model, prompter, [one])
        assert alone.scored is not None and answer.scored is not None
        assert [token.token for token in alone.scored] == [token.token for token in answer.scored]
        assert_close([t.logprob for t in alone.scored], [t.logprob for t in answer.scored], rtol=0, atol=1e-5)


def test_the_token_that_ends_an_answer_has_a_probability_too(model: VisionLanguageModel, prompter: Prompter) -> None:
    end = min(prompter.template.stop_ids)
    with torch.no_grad():
        model.lm_head.weight[:] = 0.0  # all tokens are equally probable, and the first of equals is taken
    prompt = prompter.beginning([], "a")
    ended = [
        answer
        for seed in range(0, 2000, 250)
        for answer in answers(
            model, prompter, [Asked(prompt, Decoding(temperature=1.0, seed=seed + n), 1, (), 1) for n in range(250)]
        )
        if answer.finish_reason == "stop"
    ]
    assert ended and all(answer.tokens == 0 for answer in ended)
    assert any([one.token for one in answer.scored or ()] == [end] for answer in ended)


def test_weights_without_finite_probabilities_refuse_only_requests_for_them(
    model: VisionLanguageModel, prompter: Prompter
) -> None:
    with torch.no_grad():
        model.lm_head.weight[:] = torch.nan
    engine = Engine(model, prompter, batch=4, context=context_of(model))
    engine.start()
    asked = Asked(prompter.beginning([], "a"), Decoding(), 1, (), 0)
    with pytest.raises(Refused, match="the model gives probabilities that are not finite") as caught:
        engine.ask(asked, lambda: True)
    assert caught.value.status == 500


def test_tokens_that_no_text_contains_are_no_alternatives() -> None:
    logits = torch.tensor([1.0, -torch.inf, 0.0, -torch.inf])
    found = scored(logits, 2, 20)
    assert [token for token, _ in found.top] == [0, 2]
    assert found.logprob == pytest.approx(-1.3132616) and json.dumps(found.top)


def entries(tokenizer: object, *tokens: int) -> list[tuple[str, list[int] | None]]:
    document = logprobs_document([ScoredToken(token, -1.0, ((token, -1.0),)) for token in tokens], tokenizer)
    for one in document["content"]:
        assert one["top_logprobs"] == [{"token": one["token"], "logprob": -1.0, "bytes": one["bytes"]}]
    return [(one["token"], one["bytes"]) for one in document["content"]]


def test_the_bytes_of_tokens_are_those_of_the_text() -> None:
    tokenizer = byte_tokenizer()
    text = "é yes\n\u65e5 \U0001f600"
    found = entries(tokenizer, *tokenizer(text, add_special_tokens=False)["input_ids"])
    assert bytes(byte for _, some in found for byte in some or ()) == text.encode()
    assert found[2:6] == [(letter, [ord(letter)]) for letter in " yes"]
    assert entries(tokenizer, tokenizer.eos_token_id) == [(tokenizer.eos_token, list(tokenizer.eos_token.encode()))]


def test_a_token_has_the_blank_that_a_decoder_leaves_out_at_the_start() -> None:
    tokenizer = tokenizer_of("first", ["<unk>"], bos="</s>", adds_bos=True)
    tokens = tokenizer("yes it is", add_special_tokens=False)["input_ids"]
    found = entries(tokenizer, *tokens)
    assert "".join(text for text, _ in found).strip() == "yes it is" and found[0][0].startswith(" ")


def test_a_token_of_one_byte_has_this_byte() -> None:
    vocabulary = {"<unk>": 0, "a": 1, "<0xC3>": 2, "<0xA9>": 3, "<0x41>": 4}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    assert entries(fast, 1, 2, 3, 4) == [("a", [0x61]), ("\ufffd", [0xC3]), ("\ufffd", [0xA9]), ("A", [0x41])]
