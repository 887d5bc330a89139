"""Asks a step's generator about a few rows of a sample, and estimates what all rows would take, for `check --deep`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vlmdata.engine.partitions.answer_journal import AnswerJournal
from vlmdata.engine.work.open_partition import OpenPartition
from vlmdata.errors import GeneratorStopped, RecipeError
from vlmdata.generation.asking_step import AskingStep
from vlmdata.generation.outcomes import FINAL
from vlmdata.generation.pictures import BAD
from vlmdata.generation.totals import amount, reasons
from vlmdata.generator import Answer, Generator, Sampling
from vlmdata.preflight.findings import Findings
from vlmdata.process.thread import Thread
from vlmdata.row import alive
from vlmdata.sizes import counted
from vlmdata.step import Question
from vlmdata.untrusted import errors_as

ANSWERS = 4  # most answers that are asked for
ASK_S = 60.0  # seconds for all of them
PER = 1000  # rows of the estimate if the number of rows is not known
NOT_ASKED = Answer(failure="not_asked")
OF_ROWS = {BAD, "too_large"}  # failures that say nothing about the endpoint
LATE = "no_answer"  # reason of the answers that did not come in time


class FewAnswers(OpenPartition):
    """A partition that asks for at most 4 answers in all, within a time limit, and fails all other questions."""

    limit_s = ASK_S
    is_late = False  # whether a thread may still ask

    def begin(self) -> None:
        """Begin to ask for another step."""
        self.questions = 0  # the number of questions of the step
        self.found: list[Answer] = []  # the answers that came, and the failures

    def ask(self, generator: Generator, sampling: Sampling, questions: Sequence[Question]) -> list[Answer]:
        """Return answers to the first questions. The others, and those that are late, have a failure."""
        self.questions += len(questions)
        chosen = list(questions[: ANSWERS - len(self.found)])
        if chosen:
            self.found += self._within_the_limit(generator, sampling, chosen)
        answers = dict(zip((one.id for one in chosen), self.found[len(self.found) - len(chosen) :], strict=True))
        return [answers.get(question.id, NOT_ASKED) for question in questions]

    def _within_the_limit(self, generator: Generator, sampling: Sampling, chosen: list[Question]) -> list[Answer]:
        """Return the answers that come in time. A request that is late ends with the process or by its own time limit."""
        ended = threading.Event()
        results: list[list[Answer]] = []
        errors: list[Exception] = []

        def work() -> None:
            try:
                with errors_as(_kept(errors)):
                    results.append(super(FewAnswers, self).ask(generator, sampling, chosen))
            except _Stopped:
                pass
            finally:
                ended.set()

        Thread(work, name="check").start()
        ended.wait(self.limit_s)
        if errors:
            raise errors[0]
        if results:
            return results[0]
        self.is_late = True
        known = AnswerJournal(self.store, self.measuring, self.number).known
        return [known.get(question.id, Answer(failure=LATE)) for question in chosen]


class _Stopped(Exception):
    """Ends a thread whose error was kept."""


def _kept(errors: list[Exception]) -> Any:
    def keep(error: Exception) -> Exception:
        errors.append(error)
        return _Stopped()

    return keep


@dataclass(frozen=True)
class Tried:
    """What the few answers of a step took. `per_row` is the number of questions for each row."""

    asked: int
    came: list[Answer]
    failed: dict[str, int]
    per_row: float

    def means(self) -> tuple[float, float, float]:
        """Return the mean tokens of the prompts, tokens and seconds of the answers that came."""
        lists = ([getattr(one, name) for one in self.came] for name in ("prompt_tokens", "tokens", "seconds"))
        prompt_tokens, tokens, seconds = (sum(values) / len(values) for values in lists)
        return prompt_tokens, tokens, seconds


def try_answers(step: AskingStep, rows: pa.Table, opened: FewAnswers, findings: Findings, total: int | None) -> None:
    """Ask about the first rows of the sample that no step has dropped, and add what the answers took.

    `total` is the number of rows of the whole source, or None if it is not known. Raises RecipeError if
    the endpoint cannot be asked, or if no answer comes.
    """
    few = rows.filter(pa.array(alive(rows))).slice(0, ANSWERS)
    if not len(few):
        findings.facts.append(f"  {step.name}: not tried, because no row of the sample reaches it")
        return
    opened.begin()
    try:
        few = step.run(few, opened)
    except GeneratorStopped as error:
        raise RecipeError(f"step {step.name}: {error}") from None
    tried = Tried(
        len(opened.found),
        [one for one in opened.found if one.failure is None],
        dict(Counter(one.failure for one in opened.found if one.failure is not None)),
        opened.questions / len(few),
    )
    if tried.failed and not tried.came and not set(tried.failed) <= OF_ROWS:
        late = f" within {opened.limit_s:g} seconds" if LATE in tried.failed else ""
        why = "".join(f": {FINAL[name]}" for name in tried.failed if name in FINAL)
        none = f"none of {counted(tried.asked, 'answer')} came{late} ({reasons(tried.failed)}){why}"
        raise RecipeError(f"step {step.name}: {none}")
    findings.facts.append(f"  {step.name}: {_what_came(step, few, tried)}")
    if tried.came:
        reach = PER if total is None else round(total * alive(rows).mean())
        findings.facts.append(f"  estimate for {counted(reach, 'row')} that reach {step.name}: {_estimate(step, tried, reach)}")


def _what_came(step: AskingStep, few: pa.Table, tried: Tried) -> str:
    requests = counted(tried.asked - tried.failed.get(BAD, 0), "request")
    words = [
        f"{len(tried.came)} of {counted(tried.asked, 'answer')}, {'at most ' if LATE in tried.failed else ''}{requests} made"
    ]
    if tried.came:
        words.append("{:,.0f} + {:,.0f} tokens and {:.1f} s for each".format(*tried.means()))
    words += [f"failed: {reasons(tried.failed)}"] if tried.failed else []
    column = few[step.column("answers")].to_pylist()
    complete = few.filter(pa.array([all(one["failure"] != NOT_ASKED.failure for one in row or ()) for row in column]))
    refused = {name: count for name, count in step.outcomes(complete).items() if name != "accepted" and count}
    return "; ".join([*words, *([f"not used: {reasons(refused)}"] if refused else [])])


def _estimate(step: AskingStep, tried: Tried, rows: int) -> str:
    """Return what the answers about this number of rows would take, if all are like those that came."""
    answers = round(rows * tried.per_row)
    prompt_tokens, tokens, seconds = (answers * mean for mean in tried.means())
    generator = step.writer()
    at_once = getattr(generator, "concurrency", None)
    time = _time(seconds / (at_once or 1))
    words = [f"about {counted(answers, 'answer')}", f"{_rough(prompt_tokens)} + {_rough(tokens)} tokens"]
    words.append(f"{time} with {at_once} requests at the same time" if at_once else f"{time} if one comes after the other")
    money = generator.money(round(prompt_tokens), round(tokens))
    return ", ".join([*words, *([f"cost {amount(money)}"] if money is not None else [])])


def _time(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _rough(number: float) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number:,.0f}"
