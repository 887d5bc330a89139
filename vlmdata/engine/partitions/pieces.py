"""Stores the arrays of a distributed global decision. Every worker can read these arrays to run its share of the search."""

from __future__ import annotations

import hashlib
import io

import numpy as np

from vlmdata.engine.store.store_protocol import Store

FOLDER = "work/pieces"


def keep_piece(store: Store, array: np.ndarray) -> str:
    """Store an array where every worker can read it. Return its path or URL, which contains a hash of its content."""
    sink = io.BytesIO()
    np.save(sink, np.ascontiguousarray(array))
    name = f"{FOLDER}/{hashlib.sha256(sink.getbuffer()).hexdigest()[:32]}.npy"
    store.put_new(name, sink.getvalue())
    return f"{store.url}/{name}"


def clear_pieces(store: Store) -> None:
    """Delete all stored arrays, so that no texts and embeddings of rows stay on disk."""
    for name in store.list(FOLDER):
        store.delete(name)
