"""A user's module with a generator that fails as the test says, and a step that asks it twice about each row.

With `choices`, the step asks for their probabilities: 0.75 for the first one, and 0.25 for all others together.
"""

from __future__ import annotations

import json
from pathlib import Path

MODULE = '''
"""A scripted generator and a step that asks it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.errors import GeneratorStopped
from vlmdata.generation.asking_step import AskingStep
from vlmdata.generator import Answer, Generator
from vlmdata.row import drop_rows, set_column


@dataclass(frozen=True, kw_only=True)
class Scripted(Generator):
    """Answers with the prompt in capitals. `failures` maps a part of a prompt to a failure, until the file `healed` exists."""

    needs: ClassVar = ("endpoint",)
    log: str
    failures: dict[str, str] = field(default_factory=dict)
    healed: str = ""
    refuses: str = ""
    hangs: bool = False
    price: float = 0.0
    concurrency: int = 2

    def identity(self):
        return "scripted"

    def open(self, record):
        return Opened(self)

    def money(self, prompt_tokens, tokens):
        return self.price * (prompt_tokens + tokens) if self.price else None


class Opened:
    facts = {"model": "scripted <b>-1"}

    def __init__(self, options):
        self.options = options

    def answer(self, prompts, sampling, done):
        if self.options.refuses:
            raise GeneratorStopped(self.options.refuses)
        failures = {} if os.path.exists(self.options.healed) else self.options.failures
        for number, prompt in enumerate(prompts):
            if self.options.hangs and number:
                import threading
                threading.Event().wait()
            with open(self.options.log, "a") as file:
                file.write(f"{prompt.text}\\n")
            failure = next((name for part, name in failures.items() if part in prompt.text), None)
            if failure:
                done(number, Answer(failure=failure, seconds=0.5))
                continue
            text, shares = prompt.text.upper(), None
            if prompt.choices:
                text, shares = prompt.choices[0], (0.75, *[0.25 / (len(prompt.choices) - 1)] * (len(prompt.choices) - 1))
            done(number, Answer(text, "stop", None, 10, 3, 0.5, shares))

    def close(self):
        pass


@dataclass(frozen=True, kw_only=True)
class Louder(AskingStep):
    """Asks for the caption twice, and writes the first answer as an alternative. Rows without the first answer are dropped."""

    reads: ClassVar = ("texts",)
    measured_by: ClassVar = (*AskingStep.measured_by, "choices")
    prompts: tuple[str, ...] = ("first", "second")
    banned: str = ""
    drops: bool = True
    choices: tuple[str, ...] = ()

    def wording(self):
        return {f"prompt_{number}": text for number, text in enumerate(self.prompts)}

    def questions(self, rows, context):
        return [
            [
                self.question(row["key"], n, f"{prompt} {row['texts'][1]['text']}", choices=self.choices)
                for n, prompt in enumerate(self.prompts)
            ]
            for row in rows.select(["key", "texts"]).to_pylist()
        ]

    def outcomes(self, rows):
        texts = [a["text"] for row in rows[self.column("answers")].to_pylist() for a in row or () if a["text"] is not None]
        bad = sum(self.banned in text for text in texts) if self.banned else 0
        return {"accepted": len(texts) - bad, "banned": bad}

    def decide(self, rows):
        answers, texts = rows[self.column("answers")].to_pylist(), rows["texts"].to_pylist()
        for row, found in zip(texts, answers):
            if found and found[0]["text"]:
                row[1] = {**row[1], "alternatives": [found[0]["text"]], "origins": [self.name]}
        rows = set_column(rows, "texts", pa.array(texts, rows["texts"].type))
        failures = [found[0]["failure"] if found else None for found in answers]
        if not self.drops:
            return rows
        return drop_rows(rows, np.array([bool(one) for one in failures]), self.name, reason=np.array(failures, object))
'''


def recipe_of(folder: Path, rows: int, step: str = "", **generator: object) -> Path:
    """Write the module, `rows` pictures with captions, and a recipe. `step` holds more parameters of the step, as YAML."""
    from tests.engine.site import picture

    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(rows):
        (pictures / f"{number:02d}.jpg").write_bytes(picture(number))
        (pictures / f"{number:02d}.txt").write_text(f"caption {number:02d}")
    (folder / "scripted_writer.py").write_text(MODULE)
    file = folder / "recipe.yaml"
    choice = json.dumps({"scripted_writer.Scripted": {"log": f"{folder}/log", **generator}})
    file.write_text(
        f"source: {{type: files, path: {pictures}}}\npart_rows: 5\n"
        f"steps: [scripted_writer.Louder: {{label: louder, generator: {choice}{step and f', {step}'}}}]\n"
    )
    return file


def asked(folder: Path) -> list[str]:
    """Return the prompts that the generator got, sorted."""
    log = folder / "log"
    return sorted(log.read_text().splitlines()) if log.exists() else []
