import pytest

from tests.rows import captions
from vlmdata.steps.text_length import TextLength


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("two words", "min_words"),
        ("three short words", None),
        ("a b c", "min_chars"),
        ("a b cd", None),
        ("a b c d e f", "max_words"),
    ],
)
def test_the_boundaries(text, reason):
    assert TextLength(max_words=5).run(captions([text]))["reason"].to_pylist() == [reason]
