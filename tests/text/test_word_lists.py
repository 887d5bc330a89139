"""Word lists are read from files and from the library stop-words."""

import sys

import pytest

from vlmdata.recipe import load
from vlmdata.step import RecipeError
from vlmdata.steps.document_quality import DocumentQuality
from vlmdata.text.word_lists import fingerprint_of, read_stop_words, read_words


def test_files_of_lines_and_of_json_give_the_same_words(tmp_path):
    (tmp_path / "a.txt").write_text("Share\n tweet \n\nshare\n")
    (tmp_path / "b.json").write_text('{"tweet": 5, "SHARE": 2}')
    (tmp_path / "c.json").write_text(' ["share", "tweet"]')
    lists = [read_words(str(tmp_path / name), "here") for name in ("a.txt", "b.json", "c.json")]
    assert lists == [{"share", "tweet"}] * 3
    assert len({fingerprint_of(words) for words in lists}) == 1 != fingerprint_of(None)


def test_no_name_gives_no_list_and_a_language_gives_the_list_of_the_library():
    assert read_words("", "here") is None and read_stop_words("", "here") is None
    assert {"the", "of", "and", "is"} < read_stop_words("en", "here")
    assert {"der", "und"} < read_stop_words("de", "here")


@pytest.mark.parametrize("content", [None, "", "\n \n", "[1,", b"\xff\xfe\xff"])
def test_an_unreadable_list_raises_recipe_error(tmp_path, content):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError, match=r"^here: .*list\.txt"):
        read_words(str(path), "here")


def test_the_recipe_of_saved_pages_needs_no_list_of_stop_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "stop_words", None)  # as if it were not installed
    (step,) = [step for step in load("pages_html").steps if isinstance(step, DocumentQuality)]
    assert step.lists("here").stop is None
    with pytest.raises(RecipeError, match=r"pip install 'vlmdata\[text\]'"):
        DocumentQuality().lists("here")
