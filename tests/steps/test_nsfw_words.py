"""Documents rejected by words that the user lists."""

from tests.rows import document, table
from vlmdata.steps.nsfw_words import NsfwWords

CLEAN = " ".join(["clean"] * 99)


def test_the_share_at_its_limit_passes(tmp_path):
    (tmp_path / "list").write_text("Rude\n")
    rows = table([document(CLEAN, "rude!"), document(CLEAN, "RUDE rude"), document("rude " + "b " * 300)])
    step = NsfwWords(words=str(tmp_path / "list"))
    assert step.run(rows)["reason"].to_pylist() == [None, "words", None]
    strict = NsfwWords(words=str(tmp_path / "list"), max_count=1)
    assert strict.run(rows)["reason"].to_pylist() == [None, "words", None]
    assert strict.run(table([document("rude " * 2 + "b " * 900)]))["reason"].to_pylist() == ["words"]


def test_addresses_count_without_a_list():
    rows = table(
        [
            {**document("t"), "url": "http://ex.com/"},
            {**document("t"), "url": "http://XXX.com/"},
            {**document("t", {"url": "http://e.com/porn/a.jpg"}), "url": "http://ex.com/"},
            document("xxx porn", {"url": "data:image/png;xxx"}),
        ]
    )
    assert NsfwWords().run(rows)["reason"].to_pylist() == [None, "address", "address", None]
