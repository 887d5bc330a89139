from typing import Any

import pyarrow as pa
import pytest

from tests.rows import captions
from vlmdata.errors import RecipeError
from vlmdata.row import set_column
from vlmdata.similarity.embeddings import embeddings_in


def stored(values: list[Any], kind: pa.DataType) -> pa.Table:
    rows = captions(["a text"] * len(values))
    return set_column(rows, "e", pa.array([[value, None] for value in values], pa.list_(kind)))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([bytes(4), bytes(12)], pa.binary()),  # together as long as two embeddings of four numbers
        ([bytes(3), bytes(3)], pa.binary()),
        ([[1.0], [1.0, 2.0, 3.0]], pa.list_(pa.float32())),
    ],
)
def test_embeddings_of_several_widths_are_refused_and_never_cut_elsewhere(values: list[Any], kind: pa.DataType) -> None:
    with pytest.raises(RecipeError, match="e must hold embeddings of one width, but has some of"):
        embeddings_in(stored(values, kind), "e")


def test_no_embeddings_have_no_width() -> None:
    has, vectors = embeddings_in(stored([None, None], pa.binary()), "e")
    assert not has.any() and len(vectors) == 0
