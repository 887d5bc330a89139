"""A run whose step asks a model of transformers: answers do not depend on workers and kills, and are not made twice."""

import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.engine.site import picture
from tests.generators.written_models import write_model
from vlmdata import run

MODULE = '''
import os
from dataclasses import dataclass
from typing import ClassVar

from vlmdata.generation.asking_step import AskingStep
from vlmdata.generators.hf import Hf


@dataclass(frozen=True, kw_only=True)
class Mortal(Hf):
    """Notes each stored answer, and ends the first worker that has stored `most` answers, as if it had been killed."""

    log: str
    most: int = 1000

    def open(self, record):
        return Opened(super().open(record), self)


class Opened:
    def __init__(self, writer, options):
        self.writer, self.options, self.facts, self.stored = writer, options, writer.facts, 0

    def answer(self, prompts, sampling, done):
        def store(number, answer):
            done(number, answer)
            with open(self.options.log, "a") as file:
                file.write(f"{os.getpid()} {answer.text!r}\\n")
            self.stored += 1
            if self.stored == self.options.most and not os.path.exists(self.options.log + ".died"):
                open(self.options.log + ".died", "x").close()
                os._exit(137)

        self.writer.answer(prompts, sampling, store)

    def close(self):
        self.writer.close()


@dataclass(frozen=True, kw_only=True)
class Describe(AskingStep):
    """Asks what is in each image."""

    reads: ClassVar = ("images", "texts")
    prompt: str = "what is it? "

    def wording(self):
        return {"prompt": self.prompt}

    def questions(self, rows, context):
        found = []
        for row in rows.select(["key", "images", "texts"]).to_pylist():
            image = row["images"][0]
            read = lambda place=(image["blob"], image["offset"], image["size"]): context.image_bytes(*place)
            text = self.prompt + row["texts"][1]["text"]
            found.append([self.question(row["key"], 0, text, images=[(image["sha256"], read)], side=32)])
        return found

    def decide(self, rows):
        return rows
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    folder = tmp_path / "archives"
    folder.mkdir()
    for number in range(32):  # four archives, and so four partitions
        with zipfile.ZipFile(folder / f"{number // 8}.zip", "a") as archive:
            archive.writestr(f"{number:02d}.jpg", picture(number))
            archive.writestr(f"{number:02d}.txt", f"caption {number}" + " and more" * (number % 4))
    model = write_model("Qwen2.5-VL", tmp_path / "model")
    (tmp_path / "own_describe.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:" + ":".join(sys.path))
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"source: {{type: files, path: '{folder}/*.zip'}}\nsteps:\n- own_describe.Describe:\n"
        f"    generator: {{own_describe.Mortal: {{model: {model}, precision: fp32, batch: 3, log: {tmp_path}/log}}}}\n"
        "    max_tokens: 8\n    temperature: 1.0\n"
    )
    yield file
    sys.modules.pop("own_describe", None)


def stored(out: Path) -> dict[str, list]:
    """Return the answers in the logs of a dataset's partitions by the row's key, without the time that they took."""
    found = {}
    tables = {}
    for path in (out / "work" / "data").glob("*.parquet"):
        tables.setdefault(path.name[:6], []).append(pq.read_table(path))
    for one, other in tables.values():
        rows, measured = (one, other) if "key" in one.column_names else (other, one)
        keys = rows["key"].to_pylist()
        (name,) = set(measured.column_names) - {"row"}
        for place, values in zip(measured["row"].to_pylist(), measured[name].to_pylist(), strict=True):
            found[keys[place]] = [{**answer, "seconds": None} for answer in values["answers"]]
    assert len(tables) == 4 and len(found) == 32
    return found


def asked(tmp_path: Path) -> list[str]:
    """Return a line for each answer that a worker has stored since the last call: the worker and the answer."""
    lines = (tmp_path / "log").read_text().splitlines()
    (tmp_path / "log").unlink()
    return lines


@pytest.mark.whole
def test_a_killed_worker_changes_no_answer_and_no_answer_is_made_twice(recipe, tmp_path):
    run(recipe, tmp_path / "alone", local=True, workers=1)
    expected = stored(tmp_path / "alone")
    assert len(asked(tmp_path)) == 32 and len({answer["text"] for (answer,) in expected.values()}) > 16
    died = {"model": f"{tmp_path}/model", "precision": "fp32", "batch": 3, "log": f"{tmp_path}/log", "most": 5}
    overrides = {"own_describe.generator": {"own_describe.Mortal": died}}
    manifest = run(recipe, tmp_path / "out", local=True, workers=2, overrides=overrides)
    lines = asked(tmp_path)
    assert (tmp_path / "log.died").exists() and len({line.split()[0] for line in lines}) > 1
    assert len(lines) == 32 and stored(tmp_path / "out") == expected
    (facts,) = [one for one in manifest["models"]["own_describe"] if "computed" in one]
    assert facts["computed"] == "float32 on cpu" and len(facts["weights_sha256"]) == 64 and facts["transformers"]
    run(recipe, tmp_path / "out", local=True, workers=2, overrides={"own_describe.prompt": "and now? "})
    assert len(asked(tmp_path)) == 32
    run(recipe, tmp_path / "out", local=True, workers=2, overrides={"own_describe.prompt": "and now? "})
    assert not (tmp_path / "log").exists()
