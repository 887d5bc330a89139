"""Pictures in pieces, so that what is computed for every pixel needs no second picture in memory."""

from collections.abc import Iterator

TILE_PIXELS = 1 << 18  # what is computed for a pixel on the way takes up to 30 bytes


def tiles(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows and columns of pieces of at most TILE_PIXELS that cover a picture, left to right, then downwards."""
    columns = min(width, TILE_PIXELS)
    rows = max(1, TILE_PIXELS // columns)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))
