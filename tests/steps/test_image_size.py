import pyarrow as pa
import pytest

from tests.rows import captions, document, table
from vlmdata.row import set_column
from vlmdata.steps.image_size import ImageSize


def pair(width: int, height: int):
    return captions(["a"], original_width=[width], original_height=[height])


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((199, 300), "min_side"),
        ((200, 300), None),
        ((200, 600), None),
        ((200, 601), "max_aspect"),
        ((20_000, 10_000), None),
        ((20_001, 10_000), "max_side"),
    ],
)
def test_the_limits_of_the_size_are_inclusive(size, reason):
    assert ImageSize().run(pair(*size))["reason"].to_pylist() == [reason]


def test_a_dropped_row_keeps_its_first_reason():
    rows = captions(["a", "b"], original_width=[10, 10], original_height=[10, 10])
    rows = set_column(rows, "drop", pa.array(["download", None]))
    assert ImageSize().run(rows)["drop"].to_pylist() == ["download", "image_size"]


def test_a_document_loses_the_image_and_is_kept():
    big, small = {"original_width": 640, "original_height": 480}, {"original_width": 64, "original_height": 48}
    rows = ImageSize().run(table([document("text", big, small), document(small, "text")]))
    assert rows["drop"].to_pylist() == [None, "image_size"]
    assert [[i and i["drop"] for i in images] for images in rows["images"].to_pylist()] == [
        [None, None, "image_size"],
        ["image_size", None],
    ]
    assert (rows["value"].to_pylist(), rows["threshold"].to_pylist()) == ([None, 48.0], [None, 200.0])


def test_an_image_without_a_measured_size_is_unchanged():
    assert ImageSize().run(captions(["a"]))["drop"].to_pylist() == [None]
