"""A new decision on stored scores sends no request and computes no embedding, because each measurement would add a log
entry."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.engine.site import Site, download, hashes, ledger, manifest, site
from vlmdata import run
from vlmdata.demo.recipe import HERE

pytestmark = pytest.mark.whole

MODEL = {"model": f"local-dir:{HERE / 'clip'}", "min_score": -1, "embeddings": True}
MEASURED: list[Any] = [
    download(),
    {"resize": {"size": 48}},
    {"language": {"keep": []}},
    {"clip_score": {"label": "one", **MODEL}},
    {"clip_score": {"label": "two", **MODEL, "precision": "fp32"}},
]
DECISIONS: dict[str, Callable[[dict[str, float]], list[Any]]] = {  # `middle` holds the median of each score
    "a threshold": lambda middle: [{"min_scores": {"scores": {"one": middle["one"]}}}],
    "the best share": lambda middle: [{"top_fraction": {"score": "two", "fraction": 0.3}}],
    "by language": lambda middle: [{"min_scores": {"scores": {"one": -1}, "by_language": {"en": {"two": middle["two"]}}}}],
    "one of several": lambda middle: [{"min_scores": {"scores": {"one": 2.0, "two": middle["two"]}, "need": "any"}}],
    "duplicates": lambda middle: [{"dedupe_semantic": {"embedding": "one.embedding", "cosine": 0.8, "keep": ["two"]}}],
}


def rewritten(web: Site, steps: list[Any]) -> Path:
    """Return the site's recipe with other steps."""
    tree = yaml.safe_load(web.recipe.read_text())
    path = web.recipe.with_name("other.yaml")
    path.write_text(yaml.safe_dump({**tree, "steps": steps}, sort_keys=False))
    return path


def log_of(out: Path) -> dict[str, int]:
    """Return each file of the partitions' logs and each file that they name, with its time of writing."""
    return {str(p): p.stat().st_mtime_ns for name in ("log", "data", "notes") for p in (out / "work" / name).rglob("*.*")}


@pytest.fixture(scope="session")
def scored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    with site(folder, 48, steps=MEASURED, part_rows=16) as web:
        run(web.recipe, folder / "out", local=True, workers=2)
        found = {name: [line[name][0] for line in ledger(folder / "out") if line[name]] for name in ("one", "two")}
        yield web, folder / "out", {name: float(np.median(values)) for name, values in found.items()}


@pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS)
def test_a_decision_on_stored_scores_measures_nothing(decision, scored):
    web, out, middle = scored
    asked, before = len(web.requests()), log_of(out)
    made = run(rewritten(web, MEASURED + decision(middle)), out, local=True, workers=2)
    assert 0 < made["kept"] < 39
    assert len(web.requests()) == asked
    assert log_of(out) == before


def test_a_new_decision_equals_a_fresh_run_and_the_manifest_names_the_models(scored, tmp_path: Path):
    web, out, middle = scored
    recipe = rewritten(web, MEASURED + DECISIONS["one of several"](middle))
    run(recipe, out, local=True, workers=1)
    run(recipe, tmp_path / "fresh", local=True, workers=2)
    assert hashes(out) == hashes(tmp_path / "fresh")
    models = manifest(out)["models"]
    assert [len(models[name]) for name in ("one", "two")] == [1, 1]
    one, two = models["one"][0], models["two"][0]
    assert one["weights_sha256"] == two["weights_sha256"] and len(one["weights_sha256"]) == 64
    assert one["preprocessing"]["mean"] == [0.5, 0.5, 0.5] and "96" in one["preprocessing"]["resize"]
    assert two["computed"].startswith("float32")
