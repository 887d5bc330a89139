"""Reads the bytes that a row points to, from the dataset's store or from a file of the source."""

from __future__ import annotations

import os

from vlmdata.engine.store.store_protocol import Store


def read_blob(store: Store, blob: str, offset: int, size: int) -> bytes:
    """Return `size` bytes of a file, starting at `offset`.

    `blob` is the name of a file in the store, or the absolute path or fsspec URL of a file of the source.
    """
    if "://" in blob:
        import fsspec

        fs, path = fsspec.url_to_fs(blob)
        return fs.cat_file(path, start=offset, end=offset + size)
    if blob.startswith("/"):
        with open(blob, "rb", buffering=0) as file:
            return os.pread(file.fileno(), size, offset)
    return store.read_range(blob, offset, size)
