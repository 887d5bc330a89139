from pathlib import Path

import pytest

from tests.rows import captions
from tests.text.wordnets import small_wordnet
from vlmdata.step import RecipeError
from vlmdata.steps.text_concepts import TextConcepts


def test_a_text_with_a_listed_word_is_kept_and_the_word_is_stored(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("Dog\ncat\n", encoding="utf-8")
    step = TextConcepts(words=str(tmp_path / "words.txt"))
    step.check()
    found = step.run(captions(["a DOG here", "a dog, here", "a hot cat", ""]))
    assert found["text_concepts"].to_pylist() == [[None, "DOG"], [None, None], [None, "cat"], [None, None]]
    assert found["reason"].to_pylist() == [None, "names_nothing_listed", None, "names_nothing_listed"]


def test_a_word_of_a_script_without_blanks_is_found_inside_a_longer_run(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("猫\nねこ\ncat\n", encoding="utf-8")
    found = TextConcepts(words=str(tmp_path / "words.txt")).run(captions(["红色的猫。", "赤いねこ", "狗", "concatenate"]))
    assert found["text_concepts"].to_pylist() == [[None, "猫"], [None, "ねこ"], [None, None], [None, None]]


def test_synsets_are_found_in_wordnet_by_their_offset_only(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("n02084071\nn01926311\n")  # a dog, and the offset of the verb `run`
    step = TextConcepts(synsets=str(tmp_path / "ids.txt"), wordnet=str(small_wordnet(tmp_path / "dict")))
    step.check()
    found = step.run(captions(["two dogs", "they ran", "a mouse", "dog's"]))
    assert found["drop"].is_null().to_pylist() == [True, True, False, False]


def test_another_list_changes_the_identity_of_the_step(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("dog\n")
    before = TextConcepts(words=str(path)).identity()
    path.write_text("cat\n")
    assert TextConcepts(words=str(path)).identity() != before


def test_missing_lists_and_invalid_ids_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="set either `words`"):
        TextConcepts().check()
    with pytest.raises(RecipeError, match=r"text_concepts.words: there is no file nowhere.txt. Give a text file with one word"):
        TextConcepts(words="nowhere.txt").check()
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=r"text_concepts.wordnet: there is no file .*index.noun. Give the folder `dict`"):
        TextConcepts(synsets=__file__, wordnet=str(tmp_path / "empty")).check()
    (tmp_path / "ids.txt").write_text("dog\n")
    with pytest.raises(RecipeError, match="must hold one id"):
        TextConcepts(synsets=str(tmp_path / "ids.txt"), wordnet=str(small_wordnet(tmp_path / "dict"))).check()
