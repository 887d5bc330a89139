"""Threads that ask for several callers at the same time, with one limit on the prompts under way and one way to stop all."""

from __future__ import annotations

import functools
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from vlmdata.errors import GeneratorStopped
from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.process.thread import Thread, attempt

CLOSE_S = 5.0  # time in which the threads end


class CannotGoOn(Exception):
    """Raised by the function that asks, if no prompt can be answered any more. The message is for the user."""


@dataclass
class _Call:
    """One call of `answer`. `under_way` counts its prompts that were taken and are neither stored nor given up."""

    sampling: Sampling
    done: Callable[[int, Answer], None]
    under_way: int = 0
    error: BaseException | None = None
    is_ending: bool = False  # True once it can only end with an error
    is_complete: bool = True  # False once a prompt was given up


@dataclass
class _Task:
    call: _Call
    number: int
    prompt: Prompt | None
    answer: Answer | None = None


class Crew:
    """At most `size` threads, which call `ask` with prompts of all callers. `ask` returns None for a prompt that it gave up.

    A failed answer is held back until another prompt is answered, or until nothing else is under way. If `most_failures`
    prompts in a row have failed, the crew stops with the text of `failing(last failure)`, and the failures held back are
    given up: they say something about the endpoint, not about their rows.
    """

    def __init__(
        self,
        size: int,
        ask: Callable[[Prompt, Sampling], Answer | None],
        most_failures: int,
        failing: Callable[[str], str],
    ):
        self._size, self._ask = size, ask
        self._most_failures, self._failing = most_failures, failing
        self._changed = threading.Condition()
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._threads: list[Thread] = []
        self._busy = 0  # places that are taken
        self._mine = threading.local()  # the call whose prompt a thread asks
        self._held: list[_Task] = []  # failures held back
        self._failed = 0  # failures in a row
        self._why: Callable[[], str] | None = None  # the reason of the stop
        self._keeps_failures = False
        self._paused_until = 0.0
        self.is_closed = False

    def answer(self, prompts: Iterator[Prompt], sampling: Sampling, done: Callable[[int, Answer], None]) -> None:
        """Do what `OpenGenerator.answer` says."""
        call = _Call(sampling, done)
        is_sent = False
        try:
            is_sent = self._send_all(call, prompts)
        finally:
            if not is_sent:  # an error or a stop, for which no prompt is asked again
                self._end(call)
            self._wait_for(call)
        if call.error is not None:
            raise call.error
        if self._why is not None and not (is_sent and call.is_complete):
            raise GeneratorStopped(self._why())

    def stop(self, why: Callable[[], str], *, keeps_failures: bool) -> None:
        """Let no prompt begin any more. `why` is called when all prompts under way have ended."""
        with self._changed:
            if self._why is None:
                self._why, self._keeps_failures = why, keeps_failures
                if not keeps_failures:
                    for task in self._held:
                        self._give_up(task)
                    self._held = []
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Let no request begin in this time."""
        with self._changed:
            self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def may_ask(self, delay_s: float) -> bool:
        """Wait for a time, and until no pause lasts. Return False at once if the crew stops or the call failed.

        Only the function that asks may call this, in its thread.
        """
        after, call = time.monotonic() + delay_s, self._mine.call
        with self._changed:
            while self._why is None and not call.is_ending:
                left = max(after, self._paused_until) - time.monotonic()
                if left <= 0:
                    return True
                self._changed.wait(left)
            return False

    def close(self) -> None:
        """Stop and end the threads."""
        self.is_closed = True
        self.stop(lambda: "the generator was closed", keeps_failures=False)
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(CLOSE_S)

    def _send_all(self, call: _Call, prompts: Iterator[Prompt]) -> bool:
        """Give the prompts to the threads, each when a place is free. Return whether all were given."""
        for number in itertools.count():
            if not self._take_place(call):
                return False
            with ExitStack() as undo:
                undo.callback(self._free_place)
                prompt = next(prompts, None)
                if prompt is None:
                    return True
                if not self._send(_Task(call, number, prompt)):
                    return False
                undo.pop_all()
        raise AssertionError("itertools.count does not end")

    def _end(self, call: _Call) -> None:
        with self._changed:
            call.is_ending = True
            self._changed.notify_all()

    def _take_place(self, call: _Call) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._busy < self._size or self._why is not None or call.error is not None)
            if self._why is not None or call.error is not None:
                return False
            self._busy += 1
            return True

    def _free_place(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def _send(self, task: _Task) -> bool:
        with self._changed:
            if self._why is not None:
                return False
            if len(self._threads) < self._size:
                thread = Thread(self._serve, name="vlmdata-ask")
                thread.start()
                self._threads.append(thread)
            task.call.under_way += 1
        self._tasks.put(task)
        return True

    def _wait_for(self, call: _Call) -> None:
        """Wait until a call has nothing under way. If the crew stops, wait until no call has."""
        while True:
            with self._changed:
                if self._held and self._busy == 0:  # nothing under way can show any more that the endpoint works
                    held, self._held = self._held, []
                    self._busy += 1
                elif call.under_way == 0 and (self._why is None or self._busy == 0):
                    return
                else:
                    self._changed.wait()
                    continue
            for task in held:
                attempt(functools.partial(self._store, task), functools.partial(self._fail, task))
            self._free_place()

    def _serve(self) -> None:
        """Answer prompts. This runs in each thread."""
        while (task := self._tasks.get()) is not None:
            attempt(functools.partial(self._answer, task), functools.partial(self._fail, task))
            task = None  # it holds images
            self._free_place()

    def _answer(self, task: _Task) -> None:
        assert task.prompt is not None
        self._mine.call = task.call
        try:
            answer = self._ask(task.prompt, task.call.sampling)
        except CannotGoOn as error:
            message = str(error)
            self.stop(lambda: message, keeps_failures=False)
            answer = None
        task.prompt = None
        with self._changed:
            if answer is None:
                self._give_up(task)
                return
            task.answer = answer
            if answer.failure is not None:
                self._hold(task, answer.failure)
                return
            self._failed = 0
            ended, self._held = [*self._held, task], []
        for one in ended:
            attempt(functools.partial(self._store, one), functools.partial(self._fail, one))

    def _hold(self, task: _Task, failure: str) -> None:
        """Hold a failure back, or stop the crew after too many."""
        self._failed += 1
        if self._why is not None and not self._keeps_failures:
            self._give_up(task)
            return
        self._held.append(task)
        if self._failed >= self._most_failures:
            words = self._failing(failure)
            self.stop(lambda: words, keeps_failures=False)

    def _store(self, task: _Task) -> None:
        assert task.answer is not None
        task.call.done(task.number, task.answer)
        with self._changed:
            task.call.under_way -= 1
            self._changed.notify_all()

    def _give_up(self, task: _Task) -> None:
        with self._changed:
            task.call.is_complete = False
            task.call.under_way -= 1
            self._changed.notify_all()

    def _fail(self, task: _Task, error: BaseException) -> None:
        """Record the error of a prompt, which the caller of `answer` raises."""
        with self._changed:
            task.call.error = task.call.error or error
            task.call.under_way -= 1
            self._end(task.call)
