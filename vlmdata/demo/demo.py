"""The demo: the whole path on bundled pictures, over a web server on the loopback address, without internet."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from pathlib import Path

from vlmdata import run, stream
from vlmdata.demo.recipe import HERE, recipe, write_list
from vlmdata.demo.server import serving
from vlmdata.show import summary
from vlmdata.step import RecipeError


def demo(out: Path, *, local: bool = False) -> str:
    """Build a dataset, stream it, train a tiny model on it, and return a dozen lines that say what happened.

    Raises RecipeError when `out` holds something else than an earlier demo.
    """
    if out.exists() and not (out / "site").is_dir() and any(out.iterdir()):
        raise RecipeError(f"{out} is not empty and no demo made it; give another --out")
    shutil.rmtree(out, ignore_errors=True)
    (out / "site").mkdir(parents=True)
    (out / "site" / "figures").symlink_to(HERE / "figures")
    began = time.monotonic()
    with serving(out / "site") as address:
        manifest = run(recipe(write_list(address, out / "site")), out / "data", local=local)
    built = time.monotonic() - began
    words = sum(len(sample["txt"].split()) for sample in stream(out / "data", seed=0))
    losses, seconds = _train(out)
    engine = "local processes" if local else "Ray"
    lines = [
        summary(manifest, str(out / "data")),
        f"built in {built:.0f} s on {engine}; streamed back: {manifest['kept']} samples, {words:,} words",
        f"trained a tiny model on them, {len(losses)} steps in {seconds:.0f} s: loss {losses[0]:.2f} -> {losses[-1]:.2f}",
        "",
        f"look at it:       {out}/data/report.html",
        f"ask about a row:  vlmdata why {out}/data {address}/moved.jpg",
        "your own list:    vlmdata run captions --set source.path=urls.parquet --out OUT",
    ]
    return "\n".join(lines)


def _train(out: Path) -> tuple[list[float], float]:
    from vlmdata_train.loop import run_training
    from vlmdata_train.recipe import load

    began = time.monotonic()
    changes = {"data": str(out / "data"), "out": str(out / "model")}
    with contextlib.redirect_stdout(sys.stderr):
        result = run_training(load("tiny", stage="align", overrides=changes))
    return result.losses, time.monotonic() - began
