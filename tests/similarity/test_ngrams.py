import numpy as np

from vlmdata.similarity.ngrams import contained, coverage, index_of


def test_coverage_counts_words_in_matched_runs_once() -> None:
    index = index_of(["a b c d e", "x y z", "short"], 4, min_words=3)
    found = coverage(["a b c d e", "a b c d", "q a b c d q", "a b c", "x y z", "w x y z", "", "b c d e f"], index)
    assert found.tolist() == [1, 1, 4 / 6, 0, 1, 3 / 4, 0, 4 / 5]


def test_an_index_without_entries_covers_nothing() -> None:
    assert coverage(["a b c"], index_of([], 13, min_words=8)).tolist() == [0]
    assert coverage([], index_of(["a b c"], 3, min_words=3)).tolist() == []


def test_contained_finds_runs_of_whole_words_as_plain_search_does() -> None:
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(list("abcdef"), random.integers(0, 12))) for _ in range(200)]
    entries = ["a", "a b", "f e d", "zz", "", "b", "a b c d"]
    expected = [
        [i, j] for i, text in enumerate(texts) for j, entry in enumerate(entries) if entry and f" {entry} " in f" {text} "
    ]
    assert contained(texts, entries).tolist() == expected


def test_texts_without_blanks_are_found_by_their_characters() -> None:
    """Two characters count as a word: n = 4 words are eight characters, and a shorter text of three or more words must match
    as a whole."""
    index = index_of(["穿红色外套的男人在过马路", "黑猫坐在垫子", "太短", "a b c d"], 4, min_words=3)
    texts = ["看：穿红色外套的男人！", "看穿红色外套的男", "黑猫坐在垫子上", "黑猫坐在垫", "太短", "a b c d e"]
    assert coverage(texts, index).tolist() == [8 / 9, 0, 6 / 7, 0, 0, 4 / 5]


def test_an_entry_without_blanks_is_contained_anywhere() -> None:
    assert contained(["一只黑猫", "カメラを持つ人", "party of cats"], ["黑猫", "カメ", "art", "猫黑"]).tolist() == [
        [0, 0],
        [1, 1],
    ]
