"""Documents are dropped by words that the user lists."""

import pytest

from tests.rows import document, table
from vlmdata.steps.nsfw_words import NsfwWords

CLEAN = " ".join(["clean"] * 99)


def test_the_limit_of_the_share_is_inclusive(tmp_path):
    (tmp_path / "list").write_text("Rude\n")
    rows = table([document(CLEAN, "rude!"), document(CLEAN, "RUDE rude"), document("rude " + "b " * 300)])
    step = NsfwWords(words=str(tmp_path / "list"))
    assert step.run(rows)["reason"].to_pylist() == [None, "words", None]
    strict = NsfwWords(words=str(tmp_path / "list"), max_count=1)
    assert strict.run(rows)["reason"].to_pylist() == [None, "words", None]
    assert strict.run(table([document("rude " * 2 + "b " * 900)]))["reason"].to_pylist() == ["words"]


def test_words_of_scripts_without_blanks_are_found_inside_longer_runs(tmp_path):
    (tmp_path / "list").write_text("坏话\n坏话连篇\nrude\nหยาบ\n")
    texts = ["这是坏话呀", "这是坏话连篇呀坏话", "好话 rude", "คำหยาบคาย", "坏 话"]
    measured = NsfwWords(words=str(tmp_path / "list")).run(table([document(text) for text in texts]))
    assert measured["nsfw_words.count"].to_pylist() == [1, 2, 1, 1, 0]
    assert measured["nsfw_words.share"].to_pylist() == pytest.approx([1 / 3, 2 / 5, 1 / 2, 1 / 5, 0])


def test_addresses_are_judged_without_a_list_too():
    rows = table(
        [
            {**document("t"), "url": "http://ex.com/"},
            {**document("t"), "url": "http://XXX.com/"},
            {**document("t", {"url": "http://e.com/porn/a.jpg"}), "url": "http://ex.com/"},
            document("xxx porn", {"url": "data:image/png;xxx"}),
        ]
    )
    assert NsfwWords().run(rows)["reason"].to_pylist() == [None, "address", "address", None]
