from pathlib import Path

import pytest

from tests.text.wordnets import small_wordnet
from vlmdata.text.wordnet import WordNet


@pytest.mark.parametrize(
    ("word", "offset"),
    [
        ("dog", 2084071),  # the first of its senses as a noun, which comes before the verb
        ("Dogs", 2084071),
        ("watches", 4555897),
        ("men", 10287213),  # found by a rule
        ("mice", 2330245),  # found in the list of exceptions
        ("knives", 3623556),
        ("boxes", 2883344),
        ("glass", 14881303),  # unchanged, although it ends in s
        ("lens", 3656484),
        ("ran", 1926311),
        ("baking", 319886),
        ("bigger", 1382086),
        ("fast", 86000),
        ("dog,", None),  # words are looked up unchanged
        ("sss", None),
        ("", None),
    ],
)
def test_the_first_synset_of_a_word_is_found(word: str, offset: int | None, tmp_path: Path) -> None:
    assert WordNet(small_wordnet(tmp_path / "dict")).first_synset(word) == offset
