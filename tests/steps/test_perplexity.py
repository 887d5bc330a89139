"""Perplexity is computed with real KenLM and SentencePiece models made here from a few sentences."""

import math
from collections import Counter

import pytest

from tests.parts import open_part
from tests.rows import document, table
from vlmdata.step import RecipeError
from vlmdata.steps.perplexity import Perplexity
from vlmdata.text.fluency import normalized

kenlm = pytest.importorskip("kenlm", reason="vlmdata[perplexity] is not installed")

SENTENCES = [
    "the river rose in the night and the town stood under water",
    "the old bridge will be repaired in the autumn",
    "nobody was hurt in the night and the bridge stood",
]


def arpa(lines: list[list[str]]) -> str:
    """Return a bigram model as ARPA text, in log10, with Witten-Bell smoothing over unigrams."""
    unigrams = Counter(word for line in lines for word in [*line, "</s>"])
    bigrams = Counter(pair for line in lines for pair in zip(["<s>", *line], [*line, "</s>"], strict=True))
    total, kinds = unigrams.total() + len(unigrams) + 1, len(unigrams) + 1
    single = {word: (count + 1) / (total + kinds) for word, count in unigrams.items()}
    single["<unk>"] = 1 - sum(single.values())
    followers = {first: [(b, n) for (a, b), n in bigrams.items() if a == first] for first in {a for a, _ in bigrams}}
    weights, double = {}, {}
    for first, found in followers.items():
        count, distinct = sum(n for _, n in found), len(found)
        for second, n in found:
            double[first, second] = n / (count + distinct)
        left = 1 - sum(double[first, second] for second, _ in found)
        weights[first] = left / (1 - sum(single[second] for second, _ in found))
    head = f"\\data\\\nngram 1={len(single) + 1}\nngram 2={len(double)}\n\n\\1-grams:\n"
    ones = [f"-99\t<s>\t{math.log10(weights['<s>']):.6f}"]
    ones += [f"{math.log10(p):.6f}\t{word}\t{math.log10(weights.get(word, 1)):.6f}" for word, p in single.items()]
    twos = [f"{math.log10(p):.6f}\t{a} {b}" for (a, b), p in double.items()]
    return head + "\n".join(ones) + "\n\n\\2-grams:\n" + "\n".join(twos) + "\n\n\\end\\\n"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    path = tmp_path_factory.mktemp("kenlm") / "words.arpa"
    path.write_text(arpa([sentence.split() for sentence in SENTENCES]))
    return str(path)


def test_prose_is_kept_and_random_words_are_dropped(tmp_path, words):
    heap = "town autumn repaired nobody water will hurt"
    rows = table([document("the river rose in the night", {"url": "u"}), document(heap), document({"url": "u"})])
    rows = Perplexity(model=words, max_perplexity=12).run(rows, open_part(tmp_path))
    assert rows["reason"].to_pylist() == [None, "max_perplexity", None]
    prose, strange, none = rows["perplexity"].to_pylist()
    assert prose < 8 < 12 < strange and none is None and rows["value"].to_pylist()[1] == pytest.approx(strange)


def test_the_value_equals_that_of_kenlm(tmp_path, words):
    text = "the old bridge stood in water"
    rows = Perplexity(model=words).run(table([document("the old bridge", "stood in water")]), open_part(tmp_path))
    glued = "the old bridgestood in water"  # OBELICS removes line breaks before the measurement, instead of splitting at them
    assert rows["perplexity"].to_pylist() == [pytest.approx(kenlm.Model(words).perplexity(glued), abs=0.06)]
    rows = Perplexity(model=words).run(table([document(text)]), open_part(tmp_path))
    assert rows["perplexity"].to_pylist() == [pytest.approx(kenlm.Model(words).perplexity(text), abs=0.06)]


def test_text_is_split_by_sentencepiece_before_kenlm(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece", reason="vlmdata[perplexity] is not installed")
    (tmp_path / "text").write_text("\n".join(SENTENCES * 20))
    prefix = str(tmp_path / "sp")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=prefix, vocab_size=34, minloglevel=2, num_threads=1
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")
    (tmp_path / "pieces.arpa").write_text(arpa([pieces.encode(sentence, out_type=str) for sentence in SENTENCES]))
    step = Perplexity(model=str(tmp_path / "pieces.arpa"), pieces=prefix + ".model")
    step.check()
    prose, noise = step.run(table([document(SENTENCES[1]), document("rrwbh tuupd nnae")]), open_part(tmp_path))[
        "perplexity"
    ].to_pylist()
    assert prose < 6 < noise


def test_texts_are_normalised_like_the_training_text_of_the_models():
    assert normalized(" On 12 May… “he” said：\t‘no’—\u00a0so ") == 'On 00 May... "he" said:‘no\' -  so'


def test_a_missing_model_is_reported_before_any_work(words):
    Perplexity(model=words).check()
    with pytest.raises(RecipeError, match=r"perplexity.pieces: there is no file nowhere.model"):
        Perplexity(model=words, pieces="nowhere.model").check()
    assert Perplexity(model=words).identity() != Perplexity(model=__file__).identity()
