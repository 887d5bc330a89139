"""The base class of steps that ask a generator. A subclass says what to ask about a row, and decides from the answers."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa
import xxhash

from vlmdata.errors import RecipeError
from vlmdata.generation.choice import GeneratorChoice, made
from vlmdata.generation.pictures import BAD, picture
from vlmdata.generator import ANSWERS, Answer, Generator, Prompt, Sampling
from vlmdata.parameters import Doc
from vlmdata.step import Question, Step, StepContext

MOST_SEED = 2**31 - 1
MOST_COUNT = 2**31 - 1  # tokens or words; a greater number does not fit into the types of columns and libraries


@dataclass(frozen=True, kw_only=True)
class AskingStep(Step):
    """A step that asks a generator about each row. Its measurement is the list of the row's answers."""

    writes: ClassVar = {"answers": ANSWERS}
    measured_by: ClassVar[tuple[str, ...]] = ("max_tokens", "temperature", "top_p")

    generator: GeneratorChoice
    max_tokens: Annotated[
        int, Doc("Most tokens of an answer. An answer that reaches it is cut.", unit="tokens", source="vlmdata's choice")
    ] = 256
    temperature: Annotated[
        float, Doc("Randomness of an answer. 0: always the most probable token.", unit="0 to 2", source="vlmdata's choice")
    ] = 0.0
    top_p: Annotated[
        float,
        Doc(
            "An answer is drawn from the most probable tokens whose probabilities add up to this.",
            unit="0 to 1",
            source="vlmdata's choice",
        ),
    ] = 1.0

    @abstractmethod
    def questions(self, rows: pa.Table, context: StepContext) -> list[list[Question]]:
        """Return the questions about each row, made with `question`. Override this method."""
        raise NotImplementedError

    @abstractmethod
    def wording(self) -> dict[str, str]:
        """Return the texts of the prompts by name. A change of one makes a new measurement, and the manifest has them."""
        raise NotImplementedError

    def outcomes(self, rows: pa.Table) -> Mapping[str, int]:
        """Return how many answers were used (`accepted`), and how many were not, by reason. Default: nothing is counted."""
        return {}

    def writer(self) -> Generator:
        """Return the generator that the parameter names."""
        return made(self.generator)

    def needed(self) -> tuple[str, ...]:
        return self.writer().needs

    def packages_needed(self) -> tuple[str, ...]:
        return (*self.packages, *self.writer().packages)

    def check(self) -> None:
        if not 1 <= self.max_tokens <= MOST_COUNT:
            raise RecipeError(f"{self.name}.max_tokens must be 1 to {MOST_COUNT:,}, not {self.max_tokens}")
        if not 0 <= self.temperature <= 2:
            raise RecipeError(f"{self.name}.temperature must lie in [0, 2], not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise RecipeError(f"{self.name}.top_p must lie in (0, 1], not {self.top_p}")
        try:
            self.writer().check()
        except RecipeError as error:
            raise RecipeError(f"{self.name}.generator.{next(iter(self.generator))}.{error}") from None

    def identity(self) -> str:
        return json.dumps([next(iter(self.generator)), self.writer().identity(), self.wording()], sort_keys=True)

    def question(
        self,
        key: str,
        number: int,
        text: str,
        *,
        system: str = "",
        images: Sequence[tuple[str, Callable[[], bytes]]] = (),
        side: int = 0,
        choices: Sequence[str] = (),
    ) -> Question:
        """Return a question about a row.

        `key` is the row's key, and `number` counts the questions about the row. Each of `images` is a string that identifies
        the image, such as its SHA-256, with a function that reads its bytes. The long side of the images will have at most
        `side` pixels. With `choices`, the answer has the probability of each of these words: see `Prompt.choices`. A parameter
        that changes the choices must be in `measured_by` or in `wording`, as one that changes the text.
        """
        parts = [key, str(number), system, text, *(name for name, _ in images), *(["", *choices] if choices else [])]
        words = "\x1f".join(parts)
        digest = xxhash.xxh3_128_intdigest(words.encode("utf-8", "surrogatepass"))

        def make() -> Prompt | str:
            pictures = [picture(read, side) for _, read in images]
            if any(one is None for one in pictures):
                return BAD
            return Prompt(text, tuple(one for one in pictures if one is not None), system, digest % MOST_SEED, tuple(choices))

        return Question(f"{digest:032x}", key, make)

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        asked = self.questions(rows, context)
        column = self.column("answers")
        kept: list[list[dict[str, Any] | None]] = [[None] * len(questions) for questions in asked]
        if column in rows.column_names:  # the answers of rows that a retry measures again
            before = zip(rows[column].to_pylist(), asked, strict=True)
            kept = [_kept(old, len(questions), context.again) for old, questions in before]
        wording = self.wording()
        digest = hashlib.sha256(json.dumps(wording, sort_keys=True).encode()).hexdigest()
        context.note({"generator": next(iter(self.generator)), "prompts": wording, "prompts_sha256": digest})
        todo = [
            question
            for old, questions in zip(kept, asked, strict=True)
            for answer, question in zip(old, questions, strict=True)
            if answer is None
        ]
        sampling = Sampling(self.max_tokens, self.temperature, self.top_p)
        fresh = iter(context.ask(self.writer(), sampling, todo))
        lists = [[_stored(next(fresh)) if answer is None else answer for answer in old] for old in kept]
        return {"answers": pa.array(lists, ANSWERS)}

    def failed(self, rows: pa.Table, reasons: Collection[str]) -> np.ndarray:
        return np.array(
            [any(one["failure"] in reasons for one in answers or ()) for answers in rows[self.column("answers")].to_pylist()],
            bool,
        )

    def spent(self, rows: pa.Table) -> dict[str, float]:
        """Return the sums of tokens and seconds, and the numbers of answers, failures and rejections.

        The names of failures and rejections are `failed/REASON` and `rejected/REASON`.
        """
        answers = rows[self.column("answers")].combine_chunks().flatten()
        sums: Counter[str] = Counter()
        for one in answers.to_pylist():
            sums[f"failed/{one['failure']}" if one["failure"] else "answers"] += 1
            for name in ("prompt_tokens", "tokens", "seconds"):
                sums[name] += one[name] or 0
        for name, count in self.outcomes(rows).items():
            sums[name if name == "accepted" else f"rejected/{name}"] += count
        return dict(sums)


def _stored(answer: Answer) -> dict[str, Any]:
    """Return an answer for a column of ANSWERS. A lone surrogate, which Arrow cannot store, becomes a question mark."""
    return {**asdict(answer), "text": None if answer.text is None else answer.text.encode("utf-8", "replace").decode()}


def _kept(before: list[dict[str, Any]] | None, count: int, again: Collection[str]) -> list[dict[str, Any] | None]:
    """Return the answers that are already stored for a row's questions. None: there is none, or it failed as in `again`."""
    if before is None or len(before) != count:
        return [None] * count
    return [None if answer["failure"] in again else answer for answer in before]
