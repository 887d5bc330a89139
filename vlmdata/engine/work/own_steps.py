"""Reports an error in a step, source or generator of a user: its name, the row, and only the user's lines of the traceback."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from itertools import dropwhile
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from vlmdata.errors import Error, OwnCodeFailed, RecipeError
from vlmdata.generator import Answer, Generator
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.row import flatten
from vlmdata.sizes import counted
from vlmdata.step import Source, Step, StepContext
from vlmdata.untrusted import Failed, errors_as, one_line, shown

T = TypeVar("T")

OURS = str(Path(__file__).parents[2])  # the folder of the package vlmdata
LINES = 4  # lines of the user's code that are shown


def run_step(step: Step, run: Callable[[pa.Table], T], rows: pa.Table) -> T:
    """Return `run(rows)`, which calls a method of the step. Raises OwnCodeFailed if the code of a user's step fails.

    The message names the first row that fails alone. To find it, the method is called with parts of the rows. Errors of
    vlmdata and of the machine are not converted.
    """
    if type(step).__module__.startswith("vlmdata."):
        return run(rows)
    with errors_as(
        lambda error: _described(f"step {step.name}", step, error, lambda: "" if step.sees_all else _where(run, rows))
    ):
        return run(rows)
    raise AssertionError("unreachable")


def measured(step: Step, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
    """Return the columns that the step measures. Raises RecipeError if a user's step returns something else."""
    found = run_step(step, lambda some: step.measure(some, context), rows)
    for name, kind in step.columns_written().items():
        if not isinstance(found, dict) or name not in found:
            raise RecipeError(f"step {step.name}: `measure` returned no column '{name}', which `writes` declares")
        if len(found[name]) != len(rows):
            raise RecipeError(
                f"step {step.name}: `measure` returned {len(found[name])} values of '{name}' for {len(rows)} rows"
            )
        with errors_as(lambda error: RecipeError(f"step {step.name}: '{name}' is not {kind}: {one_line(error)}")):  # noqa: B023
            found[name] = found[name].cast(kind)
    return found


def read_source(source: Source, read: Callable[[], T]) -> T:
    """Return `read()`, which reads from the source. Raises OwnCodeFailed if the code of a user's source fails."""
    return _run("the source", source, read)


def run_generator(generator: Generator, run: Callable[[], T]) -> T:
    """Return `run()`, which opens or asks the generator. Raises OwnCodeFailed if the code of a user's generator fails."""
    return _run("the generator", generator, run)


def unanswered(generator: Generator, missing: int, prompts: int) -> OwnCodeFailed:
    """Return the error of a generator that ended without an answer to some of its prompts."""
    what = f"the generator ({_name(generator)}) gave no answer to {missing:,} of {counted(prompts, 'prompt')}"
    return OwnCodeFailed(f"{what}. Its `answer` must call `done` for each prompt, with Answer(failure=...) if there is none")


def check_probabilities(generator: Generator, choices: int, answer: Answer) -> None:
    """Raise OwnCodeFailed if the answer to a prompt with this number of choices has no probability for each of them."""
    if not choices or answer.failure is not None or answer.finish in ("refusal", "filter"):
        return
    found = answer.probabilities or ()
    if len(found) != choices or not all(0 <= one <= 1 for one in found):
        raise OwnCodeFailed(
            f"the generator ({_name(generator)}) gave the probabilities {shown(answer.probabilities)} for a prompt with "
            f"{counted(choices, 'choice')}. Its `answer` must give a number from 0 to 1 for each choice, in "
            "Answer(probabilities=...), or Answer(failure='no_probabilities')"
        )


def _run(what: str, owner: Any, run: Callable[[], T]) -> T:
    if type(owner).__module__.startswith("vlmdata."):
        return run()
    with errors_as(lambda error: _described(what, owner, error, lambda: "")):
        return run()
    raise AssertionError("unreachable")


def _name(owner: Any) -> str:
    return f"{type(owner).__module__}.{type(owner).__qualname__}"


def _described(what: str, owner: Any, error: Exception, where: Callable[[], str]) -> Exception:
    if isinstance(error, Error | OSError) or is_short_of_memory(error):
        return error
    own = getattr(sys.modules.get(type(owner).__module__), "__file__", None)
    frames = list(dropwhile(lambda frame: frame.filename != own, traceback.extract_tb(error.__traceback__)))
    frames = [frame for frame in frames if not frame.filename.startswith(OURS)]
    lines = "".join(traceback.format_list(frames[-LINES:]))
    return OwnCodeFailed(f"{what} ({_name(owner)}) failed{where()}:\n{lines}{type(error).__name__}: {one_line(error)}")


def _where(run: Callable[[pa.Table], Any], rows: pa.Table) -> str:
    """Return the place of the first row that fails alone, or an empty string if the rows fail only together."""
    start, stop = 0, len(rows)
    while stop - start > 1:
        middle = (start + stop) // 2
        start, stop = (start, middle) if _fails(run, rows.slice(start, middle - start)) else (middle, stop)
    if start == stop or not _fails(run, rows.slice(start, 1)):
        return ""
    row = rows.slice(start, 1)
    url = next((url for url in flatten(row, "images").field("url").to_pylist() if url), None)
    place = row["place"][0].as_py() or url or row["key"][0].as_py()
    return f" at the row {place}"


def _fails(run: Callable[[pa.Table], Any], rows: pa.Table) -> bool:
    with suppress(Failed), errors_as(Failed, passes=(MemoryError,)):
        run(rows)
        return False
    return True
