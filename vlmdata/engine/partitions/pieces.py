"""Arrays that workers search in while a decision over all rows is cut into tasks for them."""

from __future__ import annotations

import hashlib
import io

import numpy as np

from vlmdata.engine.store.store_protocol import Store

FOLDER = "work/pieces"  # what workers search in while a decision is spread over them


def keep_piece(store: Store, array: np.ndarray) -> str:
    """Put an array where every worker reads it, under a name made of its content, and return its path or address."""
    sink = io.BytesIO()
    np.save(sink, np.ascontiguousarray(array))
    name = f"{FOLDER}/{hashlib.sha256(sink.getbuffer()).hexdigest()[:32]}.npy"
    store.put_new(name, sink.getvalue())
    return f"{store.url}/{name}"


def clear_pieces(store: Store) -> None:
    """Take away what was searched in: it holds texts and embeddings of rows."""
    for name in store.list(FOLDER):
        store.delete(name)
