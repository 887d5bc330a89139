import numpy as np
import pyarrow as pa
import pytest

from tests.parts import open_part
from tests.rows import captions, document, table
from tests.steps.test_clip_score import MODEL, place
from vlmdata.demo.recipe import figures
from vlmdata.models.clip import Clip
from vlmdata.row import flatten, set_column
from vlmdata.similarity.embeddings import embeddings_in
from vlmdata.step import RecipeError
from vlmdata.steps.clip_score import ClipScore
from vlmdata.steps.text_embedding import TextEmbedding, best_of

pytestmark = pytest.mark.whole

STEP = TextEmbedding(model=MODEL, precision="fp32")


def scored(rows: pa.Table, folder) -> pa.Table:
    return ClipScore(model=MODEL, precision="fp32", min_score=-1, embeddings=True).run(rows, open_part(folder))


def pairs(count: int) -> pa.Table:
    chosen = figures()[:count]
    return captions([f["caption"] for f in chosen], **{name: [place(f)[name] for f in chosen] for name in place(chosen[0])})


def test_embeddings_are_the_unit_vectors_of_the_texts_in_fp16(tmp_path):
    rows = STEP.run(scored(pairs(5), tmp_path), open_part(tmp_path))
    has, vectors = embeddings_in(rows, "text_embedding")
    expected = Clip(MODEL, "", "fp32").embed_texts([figure["caption"] for figure in figures()[:5]], 16)
    assert has.tolist() == [True, False] * 5
    assert np.abs(vectors - expected).max() < 1e-3 and vectors.tolist() == expected.astype(np.float16).astype(float).tolist()
    assert rows["drop"].null_count == 5


def test_the_cosine_of_both_embeddings_is_the_score_of_the_best_text(tmp_path):
    one, two = figures()[0], figures()[100]
    rows = scored(table([document(two["caption"], place(one), one["caption"], two["caption"])]), tmp_path)
    rows = STEP.run(rows, open_part(tmp_path))
    image, text = (embeddings_in(rows, name)[1] for name in ("clip_score.embedding", "text_embedding"))
    assert rows["clip_score.text"].to_pylist() == [[None, "after", None, None]]
    assert float((image * text).sum()) == pytest.approx(rows["clip_score"].to_pylist()[0][1], abs=1e-3)


def test_an_embedding_does_not_depend_on_other_rows(tmp_path):
    rows = scored(pairs(5), tmp_path)
    together = flatten(STEP.run(rows, open_part(tmp_path)), "text_embedding").items.to_pylist()
    alone = [STEP.run(rows.slice(row, 1), open_part(tmp_path))["text_embedding"].to_pylist()[0][0] for row in range(5)]
    assert together[::2] == alone


def test_images_without_an_embedding_and_rows_without_a_text_get_none(tmp_path):
    rows = scored(pairs(3), tmp_path)
    stored = rows["clip_score.embedding"].to_pylist()
    rows = set_column(rows, "clip_score.embedding", pa.array([stored[0], [None, None], None], pa.list_(pa.binary())))
    found = STEP.run(rows, open_part(tmp_path))["text_embedding"].to_pylist()
    assert found[0][0] is not None and found[1:] == [[None, None], [None, None]]
    bare = scored(table([document(place(figures()[0]))]), tmp_path)
    assert STEP.run(bare, open_part(tmp_path))["text_embedding"].to_pylist() == [[None]]


def test_of_equal_texts_the_first_is_best_and_nan_never_is():
    owners, texts = np.array([0, 0, 1, 1, 2]), np.array([5, 6, 7, 8, 9])
    assert best_of(owners, texts, np.array([0.5, 0.5, np.nan, -0.2, np.nan])) == {0: 5, 1: 8}


def test_a_model_of_another_width_is_refused_with_the_fix(tmp_path):
    rows = set_column(pairs(1), "clip_score.embedding", pa.array([[np.ones(4, "<f2").tobytes(), None]], pa.list_(pa.binary())))
    with pytest.raises(RecipeError, match=r"text_embedding\.model: .* width 128, but clip_score\.embedding has 4"):
        STEP.run(rows, open_part(tmp_path))
    with pytest.raises(RecipeError, match=r"text_embedding\.around"):
        TextEmbedding(around=-1).check()


def test_texts_that_clip_score_embedded_are_not_embedded_again(tmp_path, monkeypatch):
    part, asked = open_part(tmp_path), []
    units = Clip.text_units
    monkeypatch.setattr(Clip, "text_units", lambda clip, tokens: asked.append(len(tokens)) or units(clip, tokens))
    rows = ClipScore(model=MODEL, precision="fp32", min_score=-1, embeddings=True).run(pairs(20), part)
    before = len(asked)
    alone = STEP.run(rows, open_part(tmp_path / "other"))
    assert len(asked) == 2 * before == 4
    assert STEP.run(rows, part)["text_embedding"].to_pylist() == alone["text_embedding"].to_pylist()
    assert len(asked) == 4
    clip = Clip(MODEL, "", "fp32")
    assert clip.embed_texts(["b", "a", "b"]).tolist() == [clip.embed_texts([text])[0].tolist() for text in "bab"]
    assert clip.embed_texts([]).shape == (0, 1)
