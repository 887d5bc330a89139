"""A generator that looks at its prompt: it names the mean colour and the size of a picture, and repeats texts it was given.

A prompt with choices gets probabilities that depend on the picture's colour.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vlmdata.generator import Answer, Generator, Prompt, Sampling
from vlmdata.step import Question

COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 60, 190), "white": (235, 235, 235), "black": (20, 20, 20)}
NAME = "tests.generation.colours.Colours"


@dataclass(frozen=True, kw_only=True)
class Colours(Generator):
    """Writes captions by rule. Each prompt is a line of the file `log`.

    `instead` maps a colour to the text that is answered in place of a caption of a picture of this colour. `finishes` maps a
    colour to how such an answer ends. An answer to another seed differs if the temperature is not 0.

    For a prompt with choices, the probability is 0.8 for the word to which `favours` maps the picture's colour, or for the
    first word, 0.1 for all other words together, and 0.1 for other answers.
    """

    log: str
    instead: dict[str, str] | None = None
    finishes: dict[str, str] | None = None
    favours: dict[str, str] | None = None

    def identity(self) -> str:
        return "colours"

    def open(self, record: object) -> Opened:
        return Opened(self)


class Opened:
    def __init__(self, options: Colours):
        self.options, self.facts = options, {"model": "colours"}

    def answer(self, prompts, sampling, done):
        for number, prompt in enumerate(prompts):
            with open(self.options.log, "a") as file:
                file.write(json.dumps([prompt.text, prompt.system, prompt.seed, len(prompt.images)]) + "\n")
            done(number, self._answer(prompt, sampling))

    def _answer(self, prompt: Prompt, sampling: Sampling) -> Answer:
        tokens = len(prompt.text.split())
        name = looked(prompt.images[0])[0] if prompt.images else ""
        if prompt.choices:
            best = (self.options.favours or {}).get(name, prompt.choices[0])
            others = 0.1 / max(1, len(prompt.choices) - 1)
            shares = tuple(0.8 if word == best else others for word in prompt.choices)
            return Answer(best, "stop", None, tokens, 1, 0.25, shares)
        text = said(prompt)
        if sampling.temperature:
            text += f", seen as number {prompt.seed}"
        text = (self.options.instead or {}).get(name, text)
        return Answer(text, (self.options.finishes or {}).get(name, "stop"), None, tokens, len(text.split()), 0.25)

    def close(self) -> None:
        Path(self.options.log + ".closed").touch()


def looked(data: bytes) -> tuple[str, tuple[int, int]]:
    """Return the name of the colour that is nearest to an image's mean, and the image's size."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    mean = np.asarray(image, float).mean((0, 1))
    return min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum())), image.size


def said(prompt: Prompt) -> str:
    """Return a caption of the prompt's image and the texts in the prompt, or the texts without an image."""
    texts = re.findall(r"^(?:Caption|First|Second): (.*)$", prompt.text, re.M)
    if not prompt.images:
        return "in other words " + " and ".join(texts[-2:] if "First: " in prompt.text else texts[-1:])
    name, size = looked(prompt.images[0])
    found = re.search(r"came with the picture:\n(.*)\n", prompt.text)
    return f"a mostly {name} picture of {size[0]} by {size[1]} pixels" + (f" named {found[1]}" if found else "")


def painted(colour: str, side: int = 64, *, form: str = "PNG") -> bytes:
    """Return an encoded image of one colour, `side` pixels wide and half as high."""
    out = io.BytesIO()
    Image.new("RGB", (side, side // 2), COLOURS[colour]).save(out, form)
    return out.getvalue()


def asked(log: str | Path) -> list[list]:
    """Return each prompt in a log as [text, system, seed, number of images], sorted."""
    return sorted(map(json.loads, Path(log).read_text().splitlines())) if Path(log).exists() else []


class Direct:
    """A context that asks the generator at once, without journal, and has images in memory: `bodies` by blob."""

    def __init__(self, bodies: dict[str, bytes] | None = None):
        self.bodies = bodies or {}
        self.notes: list[dict] = []

    def image_bytes(self, blob: str, offset: int, size: int) -> bytes:
        return self.bodies[blob][offset : offset + size]

    def note(self, facts: dict) -> None:
        self.notes.append(dict(facts))

    def ask(self, generator: Generator, sampling: Sampling, questions: Sequence[Question]) -> list[Answer]:
        made = [question.make() for question in questions]
        found = [Answer(failure=one) if isinstance(one, str) else Answer() for one in made]
        sent = [n for n, one in enumerate(made) if isinstance(one, Prompt)]

        def done(number: int, answer: Answer) -> None:
            found[sent[number]] = answer

        with contextlib.closing(generator.open(None)) as opened:
            opened.answer(iter([made[n] for n in sent]), sampling, done)
        return found
