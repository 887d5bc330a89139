"""Splits images into tiles, so that temporary arrays do not need the memory of a whole image."""

from collections.abc import Iterator

TILE_PIXELS = 1 << 18  # temporary arrays take up to 30 bytes per pixel


def tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield (rows, columns) as slices for tiles of up to `TILE_PIXELS` pixels, which cover an image row by row."""
    columns = min(width, TILE_PIXELS)
    rows = max(1, TILE_PIXELS // columns)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))
