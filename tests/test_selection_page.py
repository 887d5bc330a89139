"""Each recipe of docs/selection.md runs, with the demo's CLIP and small files in place of published ones."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vlmdata import run
from vlmdata.demo.recipe import HERE
from vlmdata.recipe import parse

PAGE = (Path(__file__).parent.parent / "docs" / "selection.md").read_text()
RECIPES = [yaml.safe_load(block)["steps"] for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)]
KEPT = [11, 19, 30]  # of 60 rows: the cut of the whole recipe, the cut of the weighted score, and a draw of half on average


def replaced(step: Any, folder: Path) -> Any:
    """Return a step of a recipe with what a test has: a tiny CLIP, and files in `folder`."""
    ((name, parameters),) = ({step: {}} if isinstance(step, str) else step).items()
    own = {
        "clip_score": {"model": f"local-dir:{HERE / 'clip'}"},
        "text_embedding": {"model": f"local-dir:{HERE / 'clip'}"},
        "nearest_concepts": {"model": f"local-dir:{HERE / 'clip'}", "names": str(folder / "names.txt")},
        "norm_sim": {"targets": [str(folder / "targets.npy")]},
    }
    return {name: {**parameters, **own.get(name, {})}}


@pytest.mark.whole
@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_a_recipe_of_the_page_keeps_about_the_share_that_it_names(tmp_path, number):
    (tmp_path / "figures").mkdir()
    for path in sorted((HERE / "figures").iterdir())[:60]:
        (tmp_path / "figures" / path.name).write_bytes(path.read_bytes())
        (tmp_path / "figures" / f"{path.stem}.txt").write_text(f"a figure called {path.stem}")
    np.save(tmp_path / "targets.npy", np.random.default_rng(0).normal(size=(30, 128)))
    (tmp_path / "names.txt").write_text("cell\nplanet\nmap\npainting\ncircuit\ngraph\nperson\nanimal\n")
    steps = [replaced(step, tmp_path) for step in RECIPES[number] if step not in ("download", "resize")]
    tree = {"source": {"type": "files", "path": str(tmp_path / "figures")}, "steps": ["resize", *steps]}
    made = run(parse(tree), tmp_path / "out", local=True, workers=1)
    assert made["rows"] == 60 and abs(made["kept"] - KEPT[number]) <= (15 if number == 2 else 3)
