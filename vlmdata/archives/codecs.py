"""Opens compressed streams with fastwarc. The imports are late, because only the extra `pages` installs fastwarc."""

from __future__ import annotations

from typing import Any


def lz4_reader(stream: Any) -> Any:
    """Return a reader of the decompressed bytes of LZ4 frames."""
    from fastwarc.stream_io import Lz4Reader

    return Lz4Reader(stream)


def zstd_reader(stream: Any, **options: Any) -> Any:
    """Return a reader of the decompressed bytes of Zstandard frames. `options` are those of fastwarc's ZstdReader."""
    from fastwarc.stream_io import ZstdReader

    return ZstdReader(stream, **options)


def brotli_reader(stream: Any) -> Any:
    """Return a reader of the decompressed bytes of a Brotli stream."""
    from fastwarc.stream_io import BrotliReader

    return BrotliReader(stream)
