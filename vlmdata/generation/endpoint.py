"""An open OpenAI-compatible endpoint: it sends prompts, asks again after failures, and stops if it cannot go on."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vlmdata.generation.budget import Budget
from vlmdata.generation.chat import Completion, Malformed, completion, error_words, request
from vlmdata.generation.connection import Connection, Reply
from vlmdata.generation.crew import CannotGoOn, Crew
from vlmdata.generation.outcomes import is_passing
from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.models.first_token import chosen
from vlmdata.web.retry_delay import retry_after_s

FIRST_DELAY_S = 1.0  # doubles with each failure of a prompt
MOST_DELAY_S = 60.0
MOST_PAUSE_S = 600.0  # that a Retry-After is obeyed for; then the endpoint is asked again
MOST_READ = 4000  # characters of a server's message that are looked at, because the message may fill the whole answer
MOST_WORDS = 200  # characters of it that are shown
MOST_SEEN = 8  # distinct values of a fact that are kept, because a server may send another one with each answer
PIECE = 8  # a part of the key of this length in a server's message hides the message
SHORT_KEY = 16  # a shorter key, such as EMPTY, is no secret, and answers may hold the word
RESUME = "then run the same command again; it resumes"


@dataclass(frozen=True)
class EndpointOptions:
    """How an endpoint is asked. The parameters of the generator `openai` explain the values. `key` is the key itself."""

    url: str
    model: str
    key: str = field(repr=False)
    key_from: str
    concurrency: int
    timeout_s: float
    retries: int
    stop_after_failures: int
    extra_body: Mapping[str, Any]
    max_tokens_name: str
    ca_file: str

    @property
    def headers(self) -> list[str]:
        return [f"Authorization: Bearer {self.key}"] if self.key else []


class Endpoint:
    """An OpenGenerator that asks an endpoint."""

    def __init__(self, options: EndpointOptions, budget: Budget):
        self.options, self.budget = options, budget
        self.facts: Mapping[str, Any] = {"url": options.url, "model": options.model}
        self._local = threading.local()  # a connection for each thread
        self._lock = threading.Lock()
        self._is_reached = False  # whether the server ever sent a status
        self._said = ""  # of the last failure
        self._crew = Crew(options.concurrency, self._ask, options.stop_after_failures, self._failing)

    def answer(self, prompts: Iterator[Prompt], sampling: Sampling, done: Callable[[int, Answer], None]) -> None:
        self._crew.answer(prompts, sampling, done)

    def close(self) -> None:
        self._crew.close()

    def _ask(self, prompt: Prompt, sampling: Sampling) -> Answer | None:
        """Return the answer to a prompt, or None if the generator stopped before. Raises CannotGoOn."""
        options = self.options
        body = request(prompt, sampling, options.model, options.max_tokens_name, options.extra_body)
        dice = random.Random(prompt.seed)
        delay = 0.0
        most = 1 if prompt.choices else sampling.max_tokens
        answer = Answer()
        for attempt in range(options.retries + 1):
            if not self._crew.may_ask(delay):
                return None
            if not self.budget.begin(most):
                self._crew.stop(self._spent, keeps_failures=True)
                return None
            usage, answer = (0, 0), Answer()
            try:
                reply = self._connection().post(body)
                usage, answer = self._outcome(reply, prompt, most)
            finally:
                self.budget.end(usage, is_answer=answer.text is not None)
            if answer.failure is None or not is_passing(answer.failure):
                return answer
            delay = min(MOST_DELAY_S, FIRST_DELAY_S * 2.0**attempt) * dice.uniform(0.5, 1.0)
        return answer

    def _connection(self) -> Connection:
        if not hasattr(self._local, "connection"):
            options = self.options
            url = f"{options.url}/chat/completions"
            self._local.connection = Connection(
                url,
                options.headers,
                timeout_s=options.timeout_s,
                ca_file=options.ca_file,
                is_closed=lambda: self._crew.is_closed,
            )
        return self._local.connection

    def _outcome(self, reply: Reply, prompt: Prompt, most: int) -> tuple[tuple[int, int], Answer]:
        """Return the usage to count, and the answer or the failure. Raises CannotGoOn if no prompt can be answered any more.

        `most` tokens are counted if the server counts none, because a budget must end.
        """
        if reply.status:
            self._is_reached = True
        failure = reply.failure
        if failure is None and reply.status == 200:
            try:
                return self._answered(completion(reply.body, reads_tokens=bool(prompt.choices)), reply, prompt, most)
            except Malformed as error:
                failure, self._said = "malformed", self._shown(str(error))
        elif failure is not None:
            self._said = self._shown(reply.words)
            if reply.is_unreachable and not self._is_reached:
                raise CannotGoOn(self._unreachable())
        else:
            self._check_status(reply)
            failure = "redirect" if 300 <= reply.status < 400 else f"http_{reply.status}"
        return (0, 0), Answer(failure=failure, seconds=reply.seconds)

    def _answered(self, said: Completion, reply: Reply, prompt: Prompt, most: int) -> tuple[tuple[int, int], Answer]:
        self._note(said)
        key, text = self.options.key, said.text
        if len(key) >= SHORT_KEY:
            text = text.replace(key, "REDACTED")
        prompt_tokens, tokens = said.usage or (0, 0)
        answer = Answer(text, said.finish, None, prompt_tokens, tokens, reply.seconds)
        if prompt.choices and said.finish in ("stop", "length"):
            if said.first_tokens is None:
                self._said = self._shown("the answer has no logprobs")
                answer = Answer(None, None, "no_probabilities", prompt_tokens, tokens, reply.seconds)
            else:
                answer = chosen(said.first_tokens, prompt.choices, answer)
        return said.usage or (0, most), answer

    def _check_status(self, reply: Reply) -> None:
        """Obey Retry-After. Raises CannotGoOn for a status that concerns the endpoint and not the prompt."""
        words, code = error_words(reply.body)
        self._said = self._shown(words)
        if "retry-after" in reply.headers and (reply.status == 429 or reply.status >= 500):
            self._crew.pause(pause_s(reply.headers))
        fix = ""
        if reply.status in (401, 403):
            name = self.options.key_from
            fix = (
                f"Check the key in the environment variable {name} of the process, or of each worker on a cluster"
                if name
                else "Name the environment variable with the key in `key_from`"
            )
        elif reply.status == 404:
            fix = "Correct `url`, which ends before /chat/completions, often with /v1, or `model`"
        elif reply.status == 402 or code == "insufficient_quota":
            fix = "Add credit to the account of the key"
        if fix:
            raise CannotGoOn(f"{self._where()} answered {reply.status}{self._said}. {fix}, {RESUME}")

    def _unreachable(self) -> str:
        return f"{self._where()} cannot be reached{self._said}. Start the server or correct `url`, {RESUME}"

    def _failing(self, failure: str) -> str:
        count = self.options.stop_after_failures
        return (
            f"{self._where()}: the last {count} prompts failed, and the last failure is {failure}{self._said}. Correct "
            f"this, or raise `stop_after_failures` if only these rows fail, {RESUME}"
        )

    def _spent(self) -> str:
        spent, limit = self.budget.spent, self.budget.limit
        limits = [f"budget_tokens {limit.tokens:,}"] if limit.tokens else []
        limits += [f"budget_money {limit.money:,.4f}"] if limit.money else []
        money = f" and {spent.money:,.4f} of money" if spent.money else ""
        return (
            f"{self._where()}: the budget of this run ({', '.join(limits)}) is spent: {spent.tokens:,.0f} tokens{money}, "
            f"{self.budget.answers:,} answers. They are stored. Run the same command again to go on with a new budget"
        )

    def _where(self) -> str:
        return f"openai: {self.options.url}"

    def _shown(self, words: str) -> str:
        """Return a server's message for an error, as ' ("...")', or "" if it is empty. It never holds the key."""
        text = "".join(one for one in " ".join(words[:MOST_READ].split()) if one.isprintable())
        key = self.options.key
        if key and any(key[at : at + PIECE] in text for at in range(max(1, len(key) - PIECE + 1))):
            return " (its message repeats the key)"
        short = text if len(text) <= MOST_WORDS else f"{text[: MOST_WORDS - 1]}…"
        return f' ("{short.rstrip(".")}")' if short else ""

    def _note(self, said: Completion) -> None:
        """Add what the server says about the model to the facts."""
        with self._lock:
            facts = dict(self.facts)
            for name, value in (("served_models", said.model), ("system_fingerprints", said.fingerprint)):
                seen = facts.get(name, [])
                shown = self._shown(value).removeprefix(' ("').removesuffix('")')
                if shown and shown not in seen and len(seen) < MOST_SEEN:
                    facts[name] = sorted([*seen, shown])
            if said.usage is None:
                facts["answers_without_usage"] = True
            if facts != self.facts:
                self.facts = facts


def pause_s(headers: Mapping[str, str]) -> float:
    """Return the seconds for which a Retry-After header forbids requests, at most MOST_PAUSE_S; 0 if it is unreadable."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)  # some servers send fractions of a second
    except ValueError:
        seconds = retry_after_s(value, headers.get("date", ""))
    return min(max(seconds, 0.0), MOST_PAUSE_S) if math.isfinite(seconds) else 0.0
