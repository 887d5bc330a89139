"""Identify a model folder or a file of weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vlmdata.errors import RecipeError
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.untrusted import one_line

_SAMPLE = 1 << 20  # bytes read at each end of a file; a whole file of weights would take too long in each worker


def identity(path: str) -> str:
    """Return a hash of the file at `path`, or of all files in the folder at `path`.

    The hash covers the name and the size of each file, and its first and last MiB. If `path` is neither a file nor a folder
    with files, return it unchanged.
    """
    place = Path(path)
    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    if not all(file.is_file() for file in files) or not files:
        return path
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_SAMPLE))
            stream.seek(max(0, size - _SAMPLE))
            digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()[:16]


def unusable_weights(name: str, error: Exception) -> Exception:
    """Return the error to raise for weights that cannot be loaded. A lack of memory does not mean that they are damaged."""
    return _unusable(f"the weights {name}", error, "Give other weights, or delete a damaged download")


def unusable_tokenizer(name: str, error: Exception) -> Exception:
    """Return the error to raise if the tokenizer of the model `name` cannot be loaded."""
    return _unusable(f"the tokenizer of {name}", error, "Copy or download its files again, such as tokenizer.json")


def _unusable(what: str, error: Exception, fix: str) -> Exception:
    if is_short_of_memory(error):
        return error
    return RecipeError(f"{what} cannot be loaded: {one_line(error)[:300].rstrip('. ')}. {fix}")
