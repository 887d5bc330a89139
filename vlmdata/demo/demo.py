"""The demo: the whole pipeline on bundled pictures, fetched from a web server on the loopback address."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from vlmdata import run, stream
from vlmdata.demo.recipe import HERE, figures, recipe, write_list
from vlmdata.demo.server import serving
from vlmdata.extras import check_installed, is_installed
from vlmdata.notes import is_quiet
from vlmdata.show import summary
from vlmdata.sizes import counted
from vlmdata.step import RecipeError

PACKAGES = ("open_clip", "safetensors", "tensorboard", "timm", "tokenizers", "torch", "torchvision", "transformers")


def demo(out: Path, *, local: bool = False) -> str:
    """Build a dataset, stream it, train a tiny model on it, and return a summary of about a dozen lines.

    Raises RecipeError if `out` holds files that are not from an earlier demo.
    """
    check_installed(PACKAGES, "the demo")
    local = local or not is_installed("ray")
    if out.exists() and not (out / "site").is_dir() and any(out.iterdir()):
        raise RecipeError(f"{out} holds files that are not from an earlier demo. Name another folder with --out")
    shutil.rmtree(out, ignore_errors=True)
    (out / "site").mkdir(parents=True)
    (out / "site" / "figures").symlink_to(HERE / "figures")
    began = time.monotonic()
    with serving(out / "site") as address:
        manifest = run(recipe(write_list(address, out / "site")), out / "data", local=local)
    built = time.monotonic() - began
    words = sum(len(sample["txt"].split()) for sample in stream(out / "data", seed=0))
    began = time.monotonic()
    losses = _train(out)
    seconds = time.monotonic() - began
    engine = "local processes" if local else "Ray"
    trained = f"{counted(len(losses), 'step')} in {seconds:.0f} s"
    lines = [
        summary(manifest, str(out / "data")),
        f"built in {built:.0f} s on {engine}; streamed back: {counted(manifest['kept'], 'sample')}, {counted(words, 'word')}",
        f"trained a tiny model on them, {trained}: loss {losses[0]:.2f} -> {losses[-1]:.2f}",
        "",
        *next_commands(out, f"{address}/moved.jpg"),
    ]
    return "\n".join(lines)


def next_commands(out: Path, moved: str) -> list[str]:
    """Return lines that name the next commands. `out` is the demo's folder, and `moved` the address of a row that failed."""
    data, runs = shlex.quote(f"{out}/data"), sorted((out / "model" / "checkpoints").glob("step_*"))
    picture = shlex.quote(f"{out}/site/figures/{figures()[0]['file']}")
    model = shlex.quote(str(runs[-1]))
    return [
        f"look at it:         vlmdata show {data} --open",
        f"ask about a row:    vlmdata why {data} {moved}",
        f"ask the model:      vlmdata train chat {model} {picture} --ask 'What is this?'",
        f"train for longer:   vlmdata train align tiny --set {shlex.quote(f'data={out}/data')} --set steps=600 --set out=RUN",
        "your own list:      vlmdata check captions --set source.path=urls.parquet",
        "your own pictures:  vlmdata new    # lists the recipes, also for folders, Hugging Face datasets, chats and pages",
    ]


def _train(out: Path) -> list[float]:
    """Train with the recipe `tiny`, and return the loss of each training step. Raises RecipeError if training fails.

    The trainer runs in a separate process, because vlmdata must not import it.
    """
    choices = {"data": str(out / "data"), "out": str(out / "model"), "logs.every": 1}
    settings = [word for name, value in choices.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    command = [sys.executable, "-m", "vlmdata_train", "align", "tiny", *settings, *(["--quiet"] if is_quiet() else [])]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            status = process.wait()
        finally:
            process.terminate()  # after an interrupt; the `with` waits for the process
    if status != 0:
        raise RecipeError(f"the demo's training failed with status {status}. See its messages above")
    records = [json.loads(line) for line in (out / "model/log.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if record["kind"] == "train"]
