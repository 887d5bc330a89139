"""Read the tensors of a classifier head: from a safetensors file, or from a file of PyTorch without running its code."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmdata.errors import RecipeError
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.untrusted import errors_as, one_line

SAFETENSORS = ".safetensors"
PYTORCH = (".pt", ".pth")
MOST_BYTES = 1 << 30  # of a file; the largest published head, with its image model, takes 50 MB
DEEPEST = 8  # mappings in mappings in a file of PyTorch

Tensors = dict[str, NDArray[np.float32]]


def package_of(path: Path) -> str:
    """Return the package that reads a file of weights. Raises RecipeError, beginning with "weights", for another ending."""
    if path.suffix == SAFETENSORS:
        return "safetensors"
    if path.suffix in PYTORCH:
        return "torch"
    raise RecipeError(f"weights: {path} must end with {SAFETENSORS}, {', '.join(PYTORCH)}")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Return the tensors with these names and shapes as float32. Other tensors of the file are ignored.

    In a file of PyTorch, the names of mappings in mappings are joined by dots. Raises RecipeError, whose message begins with
    "weights", if the file cannot be read, if a tensor is missing or has another shape, or if a number is not finite. Objects
    other than tensors are never loaded from a file of PyTorch, so no code in it runs.
    """
    if not path.is_file():
        raise RecipeError(f"weights: there is no file {path}")
    package = package_of(path)
    if path.stat().st_size > MOST_BYTES:
        raise RecipeError(f"weights: {path} is larger than {MOST_BYTES >> 20} MiB. Save only the tensors of the head")
    with errors_as(lambda error: _unreadable(path, error), passes=(RecipeError,)):
        found = _safetensors(path, shapes) if package == "safetensors" else _pytorch(path, shapes)
    if missing := sorted(shapes.keys() - found.keys()):
        more = f", and {len(missing) - 1} more" if missing[1:] else ""
        fix = "Give the weights of this head, or name its tensors in the description"
        raise RecipeError(f"weights: {path} has no tensor '{missing[0]}'{more}. {fix}")
    broken = next((name for name, values in found.items() if not np.isfinite(values).all()), None)
    if broken is not None:
        raise RecipeError(f"weights: the tensor '{broken}' of {path} has a number that is not finite. Save the head again")
    return found


def _safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    from safetensors import safe_open

    found: Tensors = {}
    with safe_open(path, "numpy") as file:
        for name in shapes.keys() & set(file.keys()):
            _check_shape(path, name, file.get_slice(name).get_shape(), shapes)
            values = file.get_tensor(name)
            _check_kind(path, name, values.dtype.kind == "f", str(values.dtype))
            found[name] = np.asarray(values, np.float32)
    return found


def _pytorch(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    import torch

    found: Tensors = {}
    with warnings.catch_warnings(action="ignore"):  # a notice about the version of the pickle
        waiting = [("", torch.load(path, map_location="cpu", weights_only=True), 0)]
    while waiting:
        prefix, tree, depth = waiting.pop()
        for key, value in tree.items() if isinstance(tree, Mapping) else ():
            name = f"{prefix}{key}"
            if isinstance(value, torch.Tensor) and name in shapes:
                _check_shape(path, name, value.shape, shapes)  # before a copy: a small file can state a huge shape
                _check_kind(path, name, value.is_floating_point(), str(value.dtype))
                found[name] = value.detach().float().contiguous().numpy()
            elif depth < DEEPEST and any(wanted.startswith(f"{name}.") for wanted in shapes):
                waiting.append((f"{name}.", value, depth + 1))
    return found


def _check_shape(path: Path, name: str, shape: Sequence[int], shapes: Mapping[str, tuple[int, ...]]) -> None:
    if tuple(shape) != shapes[name]:
        raise RecipeError(
            f"weights: the tensor '{name}' of {path} must have the shape {shapes[name]}, not {tuple(shape)}. "
            "Give the weights of this head, or correct the widths in the description"
        )


def _check_kind(path: Path, name: str, is_float: bool, kind: str) -> None:
    if not is_float:  # numbers of a quantised head mean nothing without their scale, and complex ones are not a head's
        raise RecipeError(f"weights: the tensor '{name}' of {path} must hold floats, not {kind}. Save the head in float32")


def _unreadable(path: Path, error: Exception) -> Exception:
    if is_short_of_memory(error):
        return error
    if "weights_only" in str(error) or "WeightsUnpickler" in str(error):
        why = "it holds other objects than tensors, which could run code"
        return RecipeError(f"weights: {path} is not loaded, because {why}. Save only the head's state_dict()")
    return RecipeError(
        f"weights: {path} cannot be read: {one_line(error)[:200].rstrip('. ')}. Save the head as safetensors, in float32"
    )
