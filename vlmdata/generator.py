"""The base class of generators: models that answer prompts with text. Steps such as `recaption` name one.

A generator is a frozen dataclass whose fields are its parameters in YAML, one file in `vlmdata/generators` for each. It opens
a model or an endpoint, which then answers prompts. Answers are stored as measurements, so each prompt is answered once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import pyarrow as pa

ANSWER = pa.struct(
    [
        pa.field("text", pa.string()),  # null if there is no answer
        # how the model ended: "stop", "length" (it reached `max_tokens`), "refusal" (it said that it refuses) or "filter"
        # (the endpoint withheld the text); null if there is no answer
        pa.field("finish", pa.string()),
        pa.field("failure", pa.string()),  # why there is no answer, such as http_400, timeout or bad_image; else null
        pa.field("prompt_tokens", pa.int32()),  # tokens of the prompt, with its images, as the model counts them
        pa.field("tokens", pa.int32()),  # tokens of the answer
        pa.field("seconds", pa.float32()),  # time for this answer; a model that answers a batch gives each its share
        pa.field("probabilities", pa.list_(pa.float64())),  # of each of the prompt's choices; null if it has none
    ]
)
ANSWERS = pa.list_(ANSWER)  # the type of a column that a step with a generator measures
ASKED = pa.list_(  # the type of a column that says what the answers beside it are about
    pa.struct(
        [
            pa.field("position", pa.int32()),  # of the text in its row; -1: the whole row
            pa.field("alternative", pa.int32()),  # the number of the text's alternative; -1: the text itself
            pa.field("name", pa.string()),  # of the score
            pa.field("reason", pa.string()),  # why nothing was asked, so that there is no answer; null: there is one
        ]
    )
)


@dataclass(frozen=True)
class Prompt:
    """What a model is asked once. It sees the images, then the text."""

    text: str
    images: tuple[bytes, ...] = ()  # encoded as JPEG, PNG or WebP, already resized
    system: str = ""  # the system text; empty: none
    seed: int = 0  # 0 to 2**31 - 1; it depends on the row, so a row gets the same seed in every run
    # words such as "yes" and "no". If given, the model writes no text: it gives the probability that its answer begins with
    # each word, before temperature and top_p. `vlmdata/models/first_token.py` says which tokens count for a word.
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. At temperature 0, the most probable token is taken, and `top_p` and the seed have no effect."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Answer:
    """An answer, or the reason why there is none. The fields are those of ANSWER."""

    text: str | None = None
    finish: str | None = None
    failure: str | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    probabilities: tuple[float, ...] | None = None  # 0 to 1; for a prompt with choices, `text` is the most probable one


class RunRecord(Protocol):
    """A small record that survives the death of a worker, for one generator in one run."""

    def read(self) -> dict[str, float]:
        """Return the values that were written last in this run, or an empty dict."""
        ...

    def write(self, values: Mapping[str, float]) -> None:
        """Replace the values. They are durable when the call returns."""
        ...


class OpenGenerator(Protocol):
    """An open model or endpoint. Several threads may call `answer` at the same time."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return what the manifest records about the model: version of the engine, hash of the weights. Holds no secrets.

        They are read before and after each call of `answer`, which may add facts.
        """
        ...

    def answer(self, prompts: Iterator[Prompt], sampling: Sampling, done: Callable[[int, Answer], None]) -> None:
        """Answer all prompts, and call `done` with the number of each prompt, counted from 0, and its answer.

        Prompts are taken from the iterator only when they can be sent, in the thread of the caller. `done` may be called in any
        thread and order. It stores the answer before it returns. Call it before the place of a prompt is given to the next one,
        so that a kill loses only the answers that are under way. Raises GeneratorStopped if the model or endpoint cannot go
        on, after all answers under way have been passed to `done`.

        `sampling` does not apply to a prompt with choices: its answer has one token, with the probabilities before temperature
        and top_p. If the model cannot give them, the answer has the failure `no_probabilities`. A refusal has none.
        `vlmdata/models/first_token.py` adds up the probabilities of the tokens that count for a word.
        """
        ...

    def close(self) -> None:
        """Release the model or the connections."""
        ...


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A generator answers prompts, which may hold images, with text."""

    id: ClassVar[str] = ""  # "vlmdata.generators.NAME" for a shipped generator; see `Step.id`
    example: ClassVar[str] = ""  # YAML: the value of the parameter `generator`

    # "model" and "gpu" as for a step; "endpoint": one worker asks a server, with several requests at the same time
    needs: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[tuple[str, ...]] = ()  # modules that the core does not install; checked before work starts

    def check(self) -> None:
        """Raise RecipeError for invalid parameters, before any row is read. The message begins with the parameter's name."""

    def identity(self) -> str:
        """Return what identifies the model: a hash of its weights, or the endpoint's address and the model's name.

        It is a part of the name of every measurement that is made with the generator.
        """
        raise NotImplementedError

    def open(self, record: RunRecord) -> OpenGenerator:
        """Load the model or connect to the endpoint. A worker does this once.

        Raises RecipeError if the model cannot be loaded.
        """
        raise NotImplementedError

    def money(self, prompt_tokens: int, tokens: int) -> float | None:
        """Return what this number of tokens costs, or None if no price is given."""
        return None
