"""List open_clip's models and weights without importing it.

Importing torch takes three seconds, and a check of a recipe should take one.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import math
import os
import re
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vlmdata.catalog import suggest
from vlmdata.home_folder import at_home
from vlmdata.step import RecipeError

WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz")  # endings of files of weights
CONFIG = "open_clip_config.json"  # of a model folder
TOKENIZERS = {"tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model", "spm.model"}
TOKENIZERS |= {"sentencepiece.bpe.model", "tokenizer.model"}
SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}  # bytes of a value
SCHEMAS = ("local-dir:", "hf-hub:")


class Weights(NamedTuple):
    """Where open_clip downloads weights from: an address, and REPOSITORY/FILE on the Hugging Face Hub, which it prefers."""

    url: str
    hub: str
    quick_gelu: bool  # whether the model with `-quickgelu` in its name has this tag too


def has_own_weights(model: str) -> bool:
    """Return whether a model name also determines the weights, so that no tag of weights is needed."""
    return model.startswith(SCHEMAS)


def names_at_home(model: str, pretrained: str) -> tuple[str, str]:
    """Return the names with the home folder in place of the `~` of a file or of `local-dir:~/FOLDER`. open_clip keeps a `~`."""
    scheme = "local-dir:" if model.startswith("local-dir:") else ""
    return scheme + at_home(model.removeprefix(scheme)), at_home(pretrained)


def check_model(model: str, pretrained: str, where: str) -> None:
    """Raise RecipeError for a model or weights that open_clip cannot find. Names on the hub are not looked up."""
    model, pretrained = names_at_home(model, pretrained)
    if model.startswith("local-dir:"):
        folder = Path(model.removeprefix("local-dir:"))
        if not (folder / CONFIG).is_file():
            raise RecipeError(f"{where}.model: {folder} is not a model folder of open_clip, because it has no {CONFIG}")
        try:
            config = json.loads((folder / CONFIG).read_bytes())
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"{where}.model: {folder / CONFIG} is damaged: {error}. Copy the model folder again") from None
        is_named = re.search('"hf_tokenizer_name": "[^"]', json.dumps(config)) is not None
        if is_named and not any((folder / name).is_file() for name in TOKENIZERS):
            raise RecipeError(f"{where}.model: {folder} has no tokenizer, such as tokenizer.json. Copy the model folder again")
        files = [file for file in sorted(folder.iterdir()) if file.suffix in WEIGHTS]
        problems = [f"{file} {problem}" for file in files if (problem := weights_problem(file))]
        if problems or not files:
            why = problems[0] if problems else f"{folder} holds no file of weights"
            raise RecipeError(f"{where}.model: {why}. Copy the model folder again")
        return
    if has_own_weights(model):
        return
    if model not in model_names():
        raise RecipeError(f"{where}.model: open_clip has no model '{model}'.{suggest(model, model_names())}")
    if Path(pretrained).is_file():
        if problem := weights_problem(Path(pretrained)):
            raise RecipeError(f"{where}.pretrained: {pretrained} {problem}. Give a file of weights, or a tag of open_clip")
        return
    own = downloads(model)
    if _clean(pretrained) in own:
        return
    if os.sep in pretrained or Path(pretrained).suffix in WEIGHTS:
        raise RecipeError(f"{where}.pretrained: there is no file {pretrained}")
    others = [] if own else sorted(name for name in model_names() if _clean(pretrained) in downloads(name))
    fix = f" Models with this tag: {', '.join(others[:5])}" if others else suggest(pretrained, sorted(own))
    raise RecipeError(
        f"{where}.pretrained must be a file or a weights tag that open_clip has for {model}, not '{pretrained}'.{fix}"
    )


def weights_problem(file: Path) -> str | None:
    """Return why a file cannot hold weights, such as "is not a file of weights", or None if it seems to hold weights.

    Only its beginning and end are read. A file of PyTorch is a zip archive or a pickle. A safetensors file begins with the
    length of its header, and the header states the length of the file.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(16)
        if head[:4] == b"PK\x03\x04":
            return None if zipfile.is_zipfile(file) else "is cut off, because its end is missing"
        if head[:1] == b"\x80":
            return None
        length = int.from_bytes(head[:8], "little")
        if size < 10 or head[8:9] != b"{" or length > size:
            return "is empty" if not size else "is not a file of weights"
        stream.seek(8)
        try:
            entries = {name: entry for name, entry in json.loads(stream.read(length)).items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            wrong = next((name for name, entry in entries.items() if not _fits(entry)), None)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            return "is not a file of weights"
    if wrong is not None:
        return f"is damaged, because its header states a wrong size for {wrong[:100]}"
    return None if size >= 8 + length + end else "is cut off, because its header states more bytes"


def _fits(entry: dict[str, Any]) -> bool:
    """Return whether a tensor of a safetensors header has as many bytes as its shape and type need. Other types pass."""
    begin, end = entry["data_offsets"]
    return entry["dtype"] not in SIZES or math.prod(entry["shape"]) * SIZES[entry["dtype"]] == end - begin >= 0 <= begin


def model_names() -> list[str]:
    """Return the architectures that open_clip ships."""
    return sorted(path.stem for path in (_package() / "model_configs").glob("*.json"))


def embedding_width(model: str) -> int | None:
    """Return the width of a model's embeddings, or None for a model on the hub. `check_model` has checked the name."""
    if model.startswith("hf-hub:"):
        return None
    if model.startswith("local-dir:"):
        tree = json.loads((Path(model.removeprefix("local-dir:")) / "open_clip_config.json").read_text())
        tree = tree.get("model_cfg", tree)
    else:
        tree = json.loads((_package() / "model_configs" / f"{model}.json").read_text())
    return tree.get("embed_dim")


def downloads(model: str) -> dict[str, Weights]:
    """Return where open_clip downloads each tag of a model's weights from."""
    return _registry().get(model.replace("/", "-"), {})


@cache
def _registry() -> dict[str, dict[str, Weights]]:
    """Return {model: {tag: weights}}, found by parsing open_clip's source without running it."""
    groups: dict[str, dict[str, Weights]] = {}
    found: dict[str, dict[str, Weights]] = {}
    for node in ast.parse((_package() / "pretrained.py").read_text()).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        if isinstance(node.value, ast.Call):
            groups[node.targets[0].id] = _group(node.value)
        elif isinstance(node.value, ast.Dict) and node.targets[0].id == "_PRETRAINED":
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if isinstance(key, ast.Constant):
                    found[str(key.value)] = groups[value.id] if isinstance(value, ast.Name) else _group(value)
    quick = {model: {tag: one for tag, one in tags.items() if one.quick_gelu} for model, tags in found.items()}
    return {f"{model}-quickgelu": tags for model, tags in quick.items() if tags} | found


def _group(call: ast.expr) -> dict[str, Weights]:
    """Return {tag: weights} of an expression such as `dict(openai=_pcfg(url="...", hf_hub="..."))`."""
    group = {}
    for one in call.keywords if isinstance(call, ast.Call) else []:
        words = one.value.keywords if isinstance(one.value, ast.Call) else []
        places = {word.arg: word.value.value for word in words if isinstance(word.value, ast.Constant)}
        hub, url = (str(places.get(name, "")) for name in ("hf_hub", "url"))
        group[str(one.arg)] = Weights(url, hub, bool(places.get("quick_gelu", False)))
    return group


def _clean(tag: str) -> str:
    return tag.lower().replace("-", "_")  # as open_clip does


def weights_identity(model: str, pretrained: str) -> str:
    """Return a string that identifies the weights: a hash of local files, or the names of the model and of its weights."""
    model, pretrained = names_at_home(model, pretrained)
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
