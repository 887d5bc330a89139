"""Read the embeddings of images from a table. Steps store them in several Arrow types."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlmdata.errors import RecipeError
from vlmdata.row import flatten, set_column


def embeddings_in(rows: pa.Table, column: str) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return which of the P positions of `images` have an embedding, and the N embeddings: (P,), (N, D).

    The column is aligned with `images`. Each position holds a list of numbers, or bytes of little-endian fp16. Raises
    RecipeError if the embeddings differ in width, as those of two models do.
    """
    values = flatten(rows, column).items.drop_null()
    is_bytes = pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)
    lengths = pc.unique(pc.binary_length(values) if is_bytes else pc.list_value_length(values)).to_pylist()
    if len(lengths) > 1 or (is_bytes and lengths and lengths[0] % 2):
        raise RecipeError(
            f"{column} must hold embeddings of one width, but has some of {' and '.join(map(str, sorted(lengths)[:3]))} "
            f"{'bytes (two for each number)' if is_bytes else 'numbers'}. Correct the step that writes it"
        )
    if is_bytes:
        flat = np.frombuffer(b"".join(values.to_pylist()), "<f2").astype(np.float32)
    else:
        flat = np.asarray(values.flatten().to_numpy(zero_copy_only=False), np.float32)
    return has_value(rows, column), flat.reshape(len(values), -1) if len(values) else np.zeros((0, 1), np.float32)


def has_value(rows: pa.Table, column: str) -> NDArray[np.bool_]:
    """Say for each position of `images` whether a column has a value there: (P,).

    Raises ValueError if the column is not aligned with `images`.
    """
    positions, items = flatten(rows, "images"), flatten(rows, column)
    lengths, own = (np.diff(flat.offsets.to_numpy()) for flat in (positions, items))
    if not np.isin(own[own != lengths], 0).all():
        raise ValueError(f"the column {column} must hold in each row one value for each image of the row, or no values")
    has = np.zeros(len(positions.items), bool)
    has[np.repeat(own > 0, lengths)] = np.asarray(items.items.is_valid())
    return has


def without_values(rows: pa.Table, column: str) -> pa.Table:
    """Return the rows with the values of the column replaced by true. Null values stay."""
    items = flatten(rows, column)
    has = np.asarray(items.items.is_valid())
    return set_column(rows, column, items.rebuild(pa.array(has, mask=~has)))
