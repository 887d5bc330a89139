import pytest

from tests.rows import captions
from vlmdata.steps.image_bytes import ImageBytes


@pytest.mark.parametrize(
    ("size", "reason"), [(4999, "min_bytes"), (5000, None), (9000, None), (9001, "max_bytes"), (None, None)]
)
def test_both_limits_are_inclusive(size, reason):
    assert ImageBytes(max_bytes=9000).run(captions(["a"], size=[size]))["reason"].to_pylist() == [reason]


def test_any_large_size_passes_without_an_upper_limit():
    assert ImageBytes().run(captions(["a"], size=[1 << 40]))["reason"].to_pylist() == [None]
