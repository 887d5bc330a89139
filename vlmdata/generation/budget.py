"""The budget of a run: how many tokens or how much money a generator may spend. It survives the death of a worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from vlmdata.generator import RunRecord

STEPS = 100  # a reservation is written ahead for this share of the budget


class Cost(NamedTuple):
    """Tokens and money."""

    tokens: float = 0
    money: float = 0.0

    def plus(self, other: Cost, times: float = 1) -> Cost:
        """Return the sum of this cost and `times` the other."""
        return Cost(self.tokens + times * other.tokens, self.money + times * other.money)


class Budget:
    """Counts what is spent in a run, in the one process that sends requests. Thread-safe.

    A request may begin while less than the limit is spent, so the budget is exceeded by at most the requests under way. The
    record holds a reservation: what is spent, with an estimate for the requests under way, and a share of the budget ahead.
    A worker that replaces a dead one takes the reservation as spent, so it never counts too little.
    """

    def __init__(self, limit: Cost, price: Callable[[int, int], float | None], record: RunRecord):
        self.limit = limit  # 0: no limit
        self._price = price
        self._record = record
        self._lock = threading.Lock()
        self._under_way = 0
        self._largest = Cost()  # of one request
        read = record.read() if any(limit) else {}
        self.spent = self._reserved = Cost(read.get("tokens", 0), read.get("money", 0.0))
        self.answers = int(read.get("answers", 0))

    def begin(self, most_tokens: int) -> bool:
        """Count a request as under way and return True, or return False if the budget is spent.

        `most_tokens` is the largest number of tokens of its answer.
        """
        with self._lock:
            if self._is_over(self.spent):
                return False
            self._reserve(self._cost(0, most_tokens))
            self._under_way += 1
            return True

    def end(self, usage: tuple[int, int], *, is_answer: bool) -> None:
        """Count the tokens of a request that ended: those of its prompt and of its answer."""
        cost = self._cost(*usage)
        with self._lock:
            self._under_way -= 1
            self.spent = self.spent.plus(cost)
            self._largest = Cost(*map(max, self._largest, cost))
            self.answers += is_answer

    def _cost(self, prompt_tokens: int, tokens: int) -> Cost:
        return Cost(prompt_tokens + tokens, self._price(prompt_tokens, tokens) or 0.0)

    def _is_over(self, cost: Cost) -> bool:
        return any(limit and one >= limit for one, limit in zip(cost, self.limit, strict=True))

    def _reserve(self, estimate: Cost) -> None:
        """Write a reservation if the written one does not cover one more request."""
        if not any(self.limit):
            return
        needed = self.spent.plus(self._largest if any(self._largest) else estimate, self._under_way + 1)
        if any(limit and one > held for one, held, limit in zip(needed, self._reserved, self.limit, strict=True)):
            self._reserved = needed.plus(self.limit, 1 / STEPS)
            self._record.write({**self._reserved._asdict(), "answers": self.answers})
