import pytest

from tests.rows import captions
from vlmdata.steps.text_repetition import TextRepetition, repetition


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sale sale shoes red", None),  # half, which is the limit
        ("sale sale sale shoes red", "max_one_word"),
        ("shoes shoes shoes", None),  # too short to judge
        ("wow" + "!" * 8, None),
        ("wow" + "!" * 9, "max_run"),
        ("the cat and the dog and the hen", None),
        ("促销促销促销红鞋子", "max_one_word"),
        ("促销促销红色鞋子", None),  # half
        ("促销促销促", None),  # too short to judge
        ("ลดราคาลดราคารองเท้า", None),
        ("一只猫和一只狗和一只母鸡在花园里", None),
    ],
)
def test_the_limit_of_the_repetition_is_inclusive(text, reason):
    assert TextRepetition(max_chars=1, max_words=1).run(captions([text]))["reason"].to_pylist() == [reason]


def test_a_phrase_repeated_many_times_is_dropped():
    text = "buy the best red shoes online here " * 3
    chars, words, _, _ = repetition(text)
    assert chars > 0.1 and words > 0.1
    assert TextRepetition().run(captions([text]))["reason"].to_pylist() == ["max_chars"]
    assert TextRepetition(max_chars=chars, max_words=words).run(captions([text]))["reason"].to_pylist() == [None]
    assert TextRepetition(max_chars=1).run(captions([text]))["reason"].to_pylist() == ["max_words"]


def test_empty_and_missing_texts_have_no_repetition():
    assert TextRepetition().run(captions(["", None, "   "]))["drop"].null_count == 3
