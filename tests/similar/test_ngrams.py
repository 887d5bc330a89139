import numpy as np

from vlmdata.similar.ngrams import contained, coverage, index_of


def test_coverage_counts_words_in_matched_runs_once() -> None:
    index = index_of(["a b c d e", "x y z", "short"], 4, min_words=3)
    found = coverage(["a b c d e", "a b c d", "q a b c d q", "a b c", "x y z", "w x y z", "", "b c d e f"], index)
    assert found.tolist() == [1, 1, 4 / 6, 0, 1, 3 / 4, 0, 4 / 5]


def test_an_index_without_entries_covers_nothing() -> None:
    assert coverage(["a b c"], index_of([], 13, min_words=8)).tolist() == [0]
    assert coverage([], index_of(["a b c"], 3, min_words=3)).tolist() == []


def test_contained_finds_whole_words_in_a_row_as_plain_search_does() -> None:
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(list("abcdef"), random.integers(0, 12))) for _ in range(200)]
    entries = ["a", "a b", "f e d", "zz", "", "b", "a b c d"]
    expected = [
        [i, j] for i, text in enumerate(texts) for j, entry in enumerate(entries) if entry and f" {entry} " in f" {text} "
    ]
    assert contained(texts, entries).tolist() == expected
