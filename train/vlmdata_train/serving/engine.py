"""The thread that owns the model. It answers the requests that wait together as one batch."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vlmdata.process.thread import Thread, attempt
from vlmdata.redact import redacted
from vlmdata.untrusted import Failed, errors_as, one_line
from vlmdata_train.data.prompts import Prompter
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.serving.generation import Answer, Asked, answer_together
from vlmdata_train.serving.refused import Refused

LOOK_S = 1.0  # between two checks whether the client of a request is still connected
MAX_PADDING = 2  # a batch has at most this many times the prompt tokens of its requests, so padding is at most half of it


@dataclass(eq=False)
class Waiting:
    """A request that waits for its answer."""

    asked: Asked
    answer: Answer | None = None
    failure: str = ""
    has_left: bool = False  # the client has closed its connection
    ended: threading.Event = field(default_factory=threading.Event)


class Engine:
    """Answers requests of many threads with one model, in batches of at most `batch` requests.

    A batch takes the first request that waits, and those after it that fit. Requests that arrive while a batch runs wait for
    its end. `context` is the largest number of tokens of a prompt with its answer.
    """

    def __init__(self, model: VisionLanguageModel, prompter: Prompter, *, batch: int, context: int) -> None:
        self.model, self.prompter, self.batch, self.context = model, prompter, batch, context
        self._queue: list[Waiting] = []
        self._changed = threading.Condition()

    def start(self) -> None:
        """Start the thread that owns the model."""
        Thread(lambda: attempt(self._work, _end_process), name="engine").start()

    def ask(self, asked: Asked, is_connected: Callable[[], bool]) -> Answer | None:
        """Return the answer to a request, or None if its client has left. Raises Refused if the model fails."""
        waiting = Waiting(asked)
        with self._changed:
            self._queue.append(waiting)
            self._changed.notify()
        while not waiting.ended.wait(LOOK_S):
            if not is_connected():
                waiting.has_left = True
                return None
        if waiting.answer is None:
            raise Refused(f"the model could not answer: {waiting.failure}", status=500, code="model_failed")
        return waiting.answer

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                group = next_batch(self._queue, self.batch, self.context)
            if group:
                self._answer(group)

    def _answer(self, group: Sequence[Waiting]) -> None:
        """Answer a batch. If the batch fails, for example for lack of memory, answer each of its requests alone."""

        def finish(number: int, answer: Answer) -> None:
            group[number].answer = answer
            group[number].ended.set()

        failure = None
        try:
            with errors_as(Failed):
                answer_together(
                    self.model, self.prompter, [one.asked for one in group], finish,
                    is_wanted=lambda number: not group[number].has_left,
                )  # fmt: skip
        except Failed as failed:  # its traceback holds the tensors of the batch until the end of this block
            failure = f"{type(failed.args[0]).__name__}: {one_line(failed.args[0])[:300]}"
        if failure is None:
            return
        left = [one for one in group if not one.ended.is_set()]
        if len(group) > 1:
            for one in left:
                self._answer([one])
            return
        print(redacted(f"vlmdata train: a request failed: {failure}"), file=sys.stderr, flush=True)
        for one in left:
            one.failure = failure
            one.ended.set()


def next_batch(queue: list[Waiting], most: int, context: int) -> list[Waiting]:
    """Remove the next batch from the queue, and return it: at most `most` requests, in the order in which they came.

    Requests whose clients have left are removed. A request is left in the queue if the batch would be mostly padding with it,
    or if the longest prompt with the longest answer would not fit in the context. The first request is always taken.
    """
    group: list[Waiting] = []
    for one in list(queue):
        if one.has_left:
            queue.remove(one)
        elif len(group) < most and (not group or _fits([*group, one], context)):
            queue.remove(one)
            group.append(one)
    return group


def _fits(group: Sequence[Waiting], context: int) -> bool:
    """Return whether requests can share a batch. All texts of a batch grow until its last answer ends."""
    lengths = [len(one.asked.prompt.input_ids) for one in group]
    longest = max(lengths)
    most_new = max(one.asked.max_tokens for one in group)
    return longest + most_new <= context and longest * len(group) <= MAX_PADDING * sum(lengths)


def _end_process(error: BaseException) -> None:
    """Print the error and end the process. Without this thread no request would ever be answered."""
    print(redacted("".join(traceback.format_exception(error))), end="", file=sys.stderr, flush=True)
    os._exit(1)
