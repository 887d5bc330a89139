"""List open_clip's models and weights without importing it.

Importing torch takes three seconds, and a check of a recipe should take one.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from vlmdata.catalog import suggest
from vlmdata.step import RecipeError

SCHEMAS = ("local-dir:", "hf-hub:")


def has_own_weights(model: str) -> bool:
    """Return whether a model name also determines the weights, so that no tag of weights is needed."""
    return model.startswith(SCHEMAS)


def check_model(model: str, pretrained: str, where: str) -> None:
    """Raise RecipeError for a model or weights that open_clip cannot find. Names on the hub are not looked up."""
    if model.startswith("local-dir:"):
        folder = Path(model.removeprefix("local-dir:"))
        if not (folder / "open_clip_config.json").is_file():
            raise RecipeError(
                f"{where}.model: {folder} is not a model folder of open_clip, because it has no open_clip_config.json"
            )
        return
    if has_own_weights(model):
        return
    if model not in model_names():
        raise RecipeError(f"{where}.model: open_clip has no model '{model}'.{suggest(model, model_names())}")
    tags = pretrained_tags()
    if not Path(pretrained).is_file() and pretrained not in tags:
        raise RecipeError(
            f"{where}.pretrained must be a file or a weights tag of open_clip, not '{pretrained}'.{suggest(pretrained, tags)}"
        )


def model_names() -> list[str]:
    """Return the architectures that open_clip ships."""
    return sorted(path.stem for path in (_package() / "model_configs").glob("*.json"))


@cache
def pretrained_tags() -> list[str]:
    """Return the tags of all weights that open_clip can download for its models.

    The tags are found by parsing open_clip's source, without running it.
    """
    tree = ast.parse((_package() / "pretrained.py").read_text())
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name))
    return sorted({str(word.arg) for call in calls if call.func.id == "dict" for word in call.keywords})  # type: ignore[attr-defined]


def weights_identity(model: str, pretrained: str) -> str:
    """Return a string that identifies the weights: a hash of local files, or the names of the model and of its weights."""
    if model.startswith("local-dir:"):
        files = sorted(Path(model.removeprefix("local-dir:")).glob("*"))
    elif Path(pretrained).is_file():
        files = [Path(pretrained)]
    else:
        return f"{model} {pretrained}"
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _package() -> Path:
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])
