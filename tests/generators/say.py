"""A small step of a test's own that asks about each picture and writes the answer over the caption, and recipes with it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.engine.site import picture

MODULE = '''
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.generation.asking_step import AskingStep
from vlmdata.row import drop_rows, set_column


@dataclass(frozen=True, kw_only=True)
class Say(AskingStep):
    """Replaces captions by answers, and drops those that are shorter than `min_chars`.

    With `choices`, a caption also gets the probability of each choice.
    """

    reads: ClassVar = ("images", "texts")
    changes: ClassVar = ("texts",)
    measured_by: ClassVar = (*AskingStep.measured_by, "choices")
    prompt: str = "say "
    min_chars: int = 0
    choices: tuple[str, ...] = ()

    def wording(self):
        return {"prompt": self.prompt}

    def questions(self, rows, context):
        found = []
        for row in rows.select(["key", "images", "texts"]).to_pylist():
            image = row["images"][0]
            place = image["blob"], image["offset"], image["size"]
            read = lambda place=place: context.image_bytes(*place)
            text = self.prompt + row["texts"][1]["text"]
            images = [(image["sha256"], read)]
            found.append([self.question(row["key"], 0, text, images=images, side=32, choices=self.choices)])
        return found

    def decide(self, rows):
        answers = rows[self.column("answers")].to_pylist()
        texts = rows["texts"].to_pylist()
        for row, said in zip(texts, answers, strict=True):
            if said and said[0]["text"]:
                row[1]["text"] = " ".join([said[0]["text"], *map(repr, said[0]["probabilities"] or ())])
        rows = set_column(rows, "texts", pa.array(texts, rows.schema.field("texts").type))
        lengths = np.array([len(one[0]["text"] or "") if one else np.nan for one in answers], float)
        return drop_rows(rows, lengths < self.min_chars, self.name, reason="min_chars")
'''


def recipe(folder: Path, url: str, rows: int, *, part_rows: int = 10, **options: Any) -> Path:
    """Write pictures with captions, the module and a recipe that asks about each at `url`, and return the recipe."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(rows):
        (pictures / f"{number:03d}.jpg").write_bytes(picture(number))
        (pictures / f"{number:03d}.txt").write_text(f"caption {number}")
    (folder / "own_say.py").write_text(MODULE)
    generator = {"openai": {"model": "tester", "url": url, "concurrency": 4, **options}}
    made = {"source": {"type": "files", "path": str(pictures)}, "part_rows": part_rows}
    made["steps"] = [{"own_say.Say": {"generator": generator}}]
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(made))
    return file


def start(recipe: Path, out: Path | str, *more: str, local: bool = True, **environment: str) -> subprocess.Popen[str]:
    """Start the command that builds the dataset with one worker."""
    command = [sys.executable, "-m", "vlmdata.cli", "run", str(recipe), "--out", str(out), "--workers", "1", *more]
    path = os.pathsep.join([str(recipe.parent), *filter(None, sys.path)])
    return subprocess.Popen(
        [*command, *(["--local"] if local else [])],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a command, and return its exit status and what it printed."""
    printed, _ = process.communicate()
    return process.returncode, printed


def tars(out: Path) -> dict[str, str]:
    """Return the SHA-256 of each published tar of a dataset."""
    found = [path for path in sorted(out.rglob("*.tar")) if "work" not in path.relative_to(out).parts]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def models(out: Path) -> list[dict[str, Any]]:
    """Return the facts about the model in a manifest."""
    return json.loads((out / "manifest.json").read_text())["models"]["own_say"]
