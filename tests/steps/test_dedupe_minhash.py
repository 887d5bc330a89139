import pytest

from tests.rows import captions, document, table
from vlmdata.step import RecipeError
from vlmdata.steps.dedupe_minhash import DedupeMinhash

WORDS = [f"word{i}" for i in range(60)]


def test_the_longest_of_similar_texts_is_kept_and_the_similarity_is_recorded() -> None:
    text = " ".join(WORDS)
    rows = captions([text, text + " and more", "something else entirely, of five words", text.upper(), "", ""])
    found = DedupeMinhash().run(rows)
    keys = rows["key"].to_pylist()
    assert found["drop"].to_pylist() == ["dedupe_minhash", None, None, "dedupe_minhash", None, None]
    assert found["cluster"].to_pylist() == [keys[1], None, None, keys[1], None, None]
    assert found["value"].to_pylist()[0] == round(56 / 58, 4)  # the 5-grams of 60 words and of 62


def test_a_text_just_below_the_threshold_is_kept() -> None:
    """60 words have 56 5-grams. With the last 12 words changed, 44 are common: 44 / 68 = 0.647."""
    rows = captions([" ".join(WORDS), " ".join(WORDS[:48] + [f"x{i}" for i in range(12)])])
    assert DedupeMinhash(threshold=0.65).run(rows)["drop"].null_count == 2
    assert DedupeMinhash(threshold=0.64, permutations=256).run(rows)["drop"].null_count == 1


def test_texts_of_a_document_are_joined_and_chinese_uses_character_grams() -> None:
    first, second = "一只黑猫坐在红色的垫子上", "看着窗外的雨"
    rows = table([document(first, {"url": "u"}, second), document(first + second), document("雨")])
    step = DedupeMinhash(grams="characters", n=2, threshold=0.7)
    assert step.run(rows)["drop"].to_pylist() == [None, "dedupe_minhash", None]


def test_a_threshold_the_permutations_cannot_reach_is_refused() -> None:
    with pytest.raises(RecipeError, match="Use more"):
        DedupeMinhash(threshold=0.02, permutations=16).check()
