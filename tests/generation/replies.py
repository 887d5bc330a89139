"""A generator that answers each kind of question of the step `instruct` with a fixed text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from vlmdata.generation.instruct_prompts import KINDS, SYSTEMS
from vlmdata.generator import Answer, Generator

NAME = "tests.generation.replies.Replies"
TALK = "Question:\nWhat sleeps?\n===\nAnswer:\nA dog.\n===\nQuestion:\nWhere does a dog sleep?\n===\nAnswer:\nOn a {bed}.\n==="
REASON = "Question:\nWhy is it quiet?\n===\nAnswer:\nThe dog sleeps.\n==="
DEFAULT = {"conversation": TALK.replace("{bed}", "sofa"), "detail": "A dog sleeps on a sofa.", "reasoning": REASON}


@dataclass(frozen=True, kw_only=True)
class Replies(Generator):
    """Answers each kind with a text. `instead` maps a part of a prompt to another text. Each prompt is a line of `log`."""

    log: str
    instead: dict[str, str] = field(default_factory=dict)
    finish: str = "stop"

    def identity(self):
        return "replies"

    def open(self, record):
        return Opened(self)


class Opened:
    def __init__(self, options):
        self.options, self.facts = options, {"model": "replies"}

    def answer(self, prompts, sampling, done):
        for number, prompt in enumerate(prompts):
            kind = next((one for one in KINDS if prompt.system == SYSTEMS[one]), "detail")
            with open(self.options.log, "a") as file:
                file.write(json.dumps([kind, prompt.text, prompt.system, len(prompt.images)]) + "\n")
            text = next((text for part, text in self.options.instead.items() if part in prompt.text), DEFAULT[kind])
            done(number, Answer(text, self.options.finish, None, 9, 3, 0.25))

    def close(self):
        pass


def asked(tmp_path: Path) -> list[list]:
    log = tmp_path / "log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
