"""Embed a long list of names with the text tower of a CLIP model, once, into a file that later runs map into memory."""

from __future__ import annotations

import fcntl
import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vlmdata.home_folder import at_home

NAMES_AT_ONCE = 4096


def names_in(path: str) -> list[str]:
    """Return the distinct lines of a text file that are not blank, in order, without white space at their ends.

    A byte order mark, as Windows writes it, is no part of the first name. Raises UnicodeDecodeError for another encoding than
    UTF-8.
    """
    lines = Path(at_home(path)).read_text(encoding="utf-8-sig").splitlines()
    return list(dict.fromkeys(name for line in lines if (name := line.strip())))


def cache_file(folder: str | Path, names: list[str], *made_with: str) -> Path:
    """Return the path of the embeddings of these names. Its name contains a hash of the names and of `made_with`.

    `made_with` identifies the model and everything else that the embeddings depend on.
    """
    digest = hashlib.sha256("\x1e".join(made_with).encode())
    for name in names:
        digest.update(b"\x1f" + name.encode())
    return Path(at_home(str(folder))) / f"concepts-{digest.hexdigest()[:16]}.npy"


def embed_names(file: Path, names: list[str], embed: Callable[[list[str]], np.ndarray]) -> Path:
    """Write the unit embeddings of the names to `file`, (N, D) fp16, unless it exists, and return its path.

    `embed` returns the embeddings of some names. Of several processes on a machine one does the work, and the others wait for
    it: a lock that ends with its process keeps them apart. The file appears only when it is complete.
    """
    if file.exists():
        return file
    with open(f"{file}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if file.exists():
            return file
        part = file.with_name(f"{file.stem}.{uuid.uuid4().hex[:8]}.part.npy")
        try:
            first = embed(names[:NAMES_AT_ONCE]).astype(np.float16)
            array = np.lib.format.open_memmap(part, "w+", np.dtype(np.float16), (len(names), first.shape[1]))
            array[: len(first)] = first
            for start in range(NAMES_AT_ONCE, len(names), NAMES_AT_ONCE):
                array[start : start + NAMES_AT_ONCE] = embed(names[start : start + NAMES_AT_ONCE])
            array.flush()
            part.rename(file)
        finally:
            part.unlink(missing_ok=True)
    Path(f"{file}.lock").unlink(missing_ok=True)
    return file
