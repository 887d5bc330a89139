"""Requests that wait together are answered as one batch, and each gets the answer that it gets alone."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bench.inputs.tars import jpeg
from tests.train.shards import drawing
from tests.train.test_cross_attention import FLAMINGO
from tests.train.test_generate import DESIGNS
from tests.train.test_parity_qwen import RECIPE as QWEN_2
from tests.train.tiny import TINY, tiny_model
from vlmdata_train.data.open_feed import prompter_of
from vlmdata_train.data.prompt import Prompt
from vlmdata_train.data.prompts import Prompter
from vlmdata_train.model.decoding import Decoding
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.model_recipe import ModelRecipe
from vlmdata_train.serving.engine import Engine, Waiting, next_batch
from vlmdata_train.serving.generation import Answer, Asked, answer_together
from vlmdata_train.serving.prompting import Prompting, context_of
from vlmdata_train.serving.refused import Refused
from vlmdata_train.serving.request import Message, Question

pytestmark = pytest.mark.whole

RED, BLUE = jpeg(drawing("red", "circle")), jpeg(drawing("blue", "square", 64))


@pytest.fixture
def model() -> VisionLanguageModel:
    return tiny_model()


@pytest.fixture
def prompter(model: VisionLanguageModel) -> Prompter:
    return prompter_of(model)


def requests(prompter: Prompter) -> list[Asked]:
    """Return requests of different lengths, with different numbers of images and ways to choose tokens."""
    ways = [Decoding(), Decoding(temperature=1.0, seed=1), Decoding(temperature=2.0, top_p=0.9, seed=1), Decoding()]
    return [
        Asked(prompter.beginning([RED, BLUE][: number % 3], "a picture of " * (1 + number)), ways[number % 4], 3 + 4 * number)
        for number in range(8)
    ]


def answers(model: VisionLanguageModel, prompter: Prompter, asked: list[Asked]) -> list[Answer]:
    """Return the answers to requests that share one batch."""
    found: dict[int, Answer] = {}
    answer_together(model, prompter, asked, found.__setitem__)
    return [found[number] for number in range(len(asked))]


def engine_of(model: VisionLanguageModel, prompter: Prompter, batch: int) -> Engine:
    return Engine(model, prompter, batch=batch, context=context_of(model))


@pytest.mark.parametrize("recipe", [TINY, FLAMINGO, QWEN_2], ids=["tokens", "cross_attention", "native sizes"])
def test_each_answer_of_a_batch_is_the_answer_to_the_request_alone(recipe: ModelRecipe) -> None:
    model = tiny_model(recipe)
    prompter = prompter_of(model)
    asked = requests(prompter)
    together = answers(model, prompter, asked)
    assert together == [answers(model, prompter, [one])[0] for one in asked]
    assert together[::-1] == answers(model, prompter, asked[::-1])
    assert len({answer.text for answer in together}) == 8
    assert [answer.tokens for answer in together if answer.finish_reason == "length"] == [
        one.max_tokens for one, answer in zip(asked, together, strict=True) if answer.finish_reason == "length"
    ]


def test_a_short_answer_is_finished_before_the_others_of_its_batch(model: VisionLanguageModel, prompter: Prompter) -> None:
    order: list[int] = []
    prompt = prompter.beginning([], "a")
    asked = [Asked(prompt, Decoding(temperature=1.0, seed=5), tokens) for tokens in (9, 1, 4)]
    answer_together(model, prompter, asked, lambda number, answer: order.append(number))
    assert order == [1, 2, 0]


def test_a_request_that_nobody_waits_for_ends_without_an_answer(model: VisionLanguageModel, prompter: Prompter) -> None:
    found: dict[int, Answer] = {}
    asked = [Asked(prompter.beginning([], "a"), Decoding(), 6), Asked(prompter.beginning([], "b"), Decoding(), 10**9)]
    answer_together(model, prompter, asked, found.__setitem__, is_wanted=lambda number: number == 0)
    assert list(found) == [0]


def waiting(tokens: int, new: int = 10, *, has_left: bool = False) -> Waiting:
    return Waiting(Asked(Prompt([1] * tokens, [1] * tokens, []), Decoding(), new), has_left=has_left)


@pytest.mark.parametrize(
    ("queue", "taken"),
    [
        ([waiting(5), waiting(6), waiting(7), waiting(8)], [0, 1, 2]),
        ([waiting(5), waiting(6, has_left=True), waiting(7), waiting(8)], [0, 2, 3]),
        ([waiting(10), waiting(50), waiting(15)], [0, 1, 2]),  # 3 * 50 tokens are not more than 2 * (10 + 50 + 15)
        ([waiting(10), waiting(50), waiting(14)], [0, 1]),
        ([waiting(10), waiting(80), waiting(11)], [0, 1]),
        ([waiting(80), waiting(10), waiting(11)], [0, 1]),
        ([waiting(5), waiting(6), waiting(95, 5), waiting(9)], [0, 1, 3]),  # the third has no room for ten more tokens
        ([waiting(95, 5), waiting(95, 5), waiting(90, 10)], [0, 1]),
        ([waiting(6, has_left=True)], []),
    ],
)
def test_a_batch_takes_the_requests_in_order_that_fit(queue: list[Waiting], taken: list[int]) -> None:
    left = list(queue)
    assert next_batch(left, 3, 100) == [queue[number] for number in taken]
    assert left == [one for number, one in enumerate(queue) if number not in taken and not one.has_left]


def test_requests_that_wait_while_a_batch_runs_form_the_next_batches(model: VisionLanguageModel, prompter: Prompter) -> None:
    asked = requests(prompter)
    alone = [answers(model, prompter, [one])[0] for one in asked]
    sizes, is_running, may_run = [], threading.Event(), threading.Event()
    queued = threading.Semaphore(0)

    def before(module: Any, words: Any, named: dict[str, Any]) -> None:
        shape = named["inputs_embeds"].shape
        if shape[1] > 1:  # the prompts
            sizes.append(shape[0])
            is_running.set()
            may_run.wait()

    def is_connected() -> bool:
        queued.release()  # the engine asks only for requests that wait
        return True

    model.language.base_model.register_forward_pre_hook(before, with_kwargs=True)
    engine = engine_of(model, prompter, 4)
    engine.start()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(engine.ask, asked[0], lambda: True)
        is_running.wait()
        rest = [pool.submit(engine.ask, one, is_connected) for one in asked[1:]]
        for _ in rest:
            queued.acquire()
        may_run.set()
        assert [future.result() for future in (first, *rest)] == alone
    assert sizes[0] == 1 and sum(sizes) == 8 and max(sizes) == 4


def test_a_request_that_fails_in_a_batch_fails_alone(
    model: VisionLanguageModel, prompter: Prompter, capsys: pytest.CaptureFixture[str]
) -> None:
    good = Asked(prompter.beginning([RED], "a"), Decoding(), 4)
    bad = Asked(prompter.beginning([RED[: len(RED) // 2]], "a"), Decoding(), 4)  # only its header can be read
    engine = engine_of(model, prompter, 8)
    with ThreadPoolExecutor(4) as pool:
        queued = threading.Semaphore(0)

        def is_connected() -> bool:
            queued.release()
            return True

        futures = [pool.submit(engine.ask, one, is_connected) for one in (good, bad, good, bad)]
        for _ in range(4):
            queued.acquire()
        engine.start()
        for number in (0, 2):
            assert futures[number].result() == answers(model, prompter, [good])[0]
        for number in (1, 3):
            with pytest.raises(Refused, match="the model could not answer: ValueError: an image cannot be decoded") as caught:
                futures[number].result()
            assert caught.value.status == 500
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["vlmdata train: a request failed: ValueError: an image cannot be decoded: truncated"] * 2


def test_a_client_that_leaves_is_not_answered(model: VisionLanguageModel, prompter: Prompter) -> None:
    engine = engine_of(model, prompter, 4)
    connected: list[Callable[[], bool]] = [lambda: False, lambda: True]
    one = Asked(prompter.beginning([], "a"), Decoding(), 2)
    assert engine.ask(one, connected[0]) is None
    engine.start()
    assert engine.ask(one, connected[1]) == answers(model, prompter, [one])[0]


def test_an_answer_ends_at_the_end_of_the_context() -> None:
    model = tiny_model(DESIGNS["tokens, Kosmos-2's decoder"])  # its table of positions has 257 rows
    prompting = Prompting(prompter_of(model), context_of(model), is_aligned_only=True)

    def asked(text: str) -> Asked:
        way = Decoding(temperature=100.0, seed=2)  # seldom draws the token that ends an answer
        return prompting.asked(Question([Message("user", [text])], way, 10**9, ()))

    before = len(asked("x").prompt.input_ids) - 1
    for letters, room in ((1, 256), (250, 7), (256, 1)):
        one = asked("x" * (letters - before))
        assert (len(one.prompt.input_ids), one.max_tokens) == (letters, room)
        (answer,) = answers(model, prompting.prompter, [one])
        assert answer.finish_reason == "stop" or answer.tokens == room
    with pytest.raises(Refused, match="a prompt of 257 tokens leaves no room for an answer in the context of the model"):
        asked("x" * (257 - before))
