"""`vlmdata check` finds steps that read embeddings or scores from a column that has none, or a field that no row gets."""

import numpy as np
import pytest

from tests.preflight.checking import check
from vlmdata.demo.recipe import HERE

CLIP = {"model": f"local-dir:{HERE / 'clip'}", "min_score": -1}
STORED = {"clip_score": {**CLIP, "embeddings": True}}
TEXTS = {"text_embedding": {"model": CLIP["model"]}}


def lines(tmp_path, capsys, *steps) -> list[str]:
    np.save(tmp_path / "t.npy", np.eye(128))
    (tmp_path / "a.csv").write_text("url,caption,similarity\nhttps://e.example/1.jpg,a cat on a mat,0.3\n")
    source = {"type": "url_list", "path": "a.csv"}
    code = check(tmp_path, source, [{"download": {"contact": "a@b.org"}}, *steps])
    found = capsys.readouterr().err.splitlines()
    assert (code == 2) == bool(found)
    return found


READERS = [
    {"norm_sim": {"targets": ["t.npy"]}},
    {"nearest_concepts": {"embeddings": "t.npy"}},
    {"dedupe_semantic": {}},
    {"text_embedding": {"model": CLIP["model"]}},
]


@pytest.mark.parametrize("step", READERS)
def test_a_step_that_needs_embeddings_is_refused_if_clip_score_stores_none(tmp_path, capsys, step):
    [line] = lines(tmp_path, capsys, {"clip_score": CLIP}, step)
    (name,) = step
    assert f"{name}.embedding: clip_score stores no embeddings. Set clip_score.embeddings to true" in line
    assert not lines(tmp_path, capsys, STORED, step)


@pytest.mark.parametrize("column", ["clip_score", "clip_score.text", "images", "images.sha256", "extra"])
def test_a_column_without_embeddings_is_named(tmp_path, capsys, column):
    [line] = lines(tmp_path, capsys, STORED, {"norm_sim": {"targets": ["t.npy"], "embedding": column}})
    assert f"norm_sim.embedding: the column '{column}' holds no embeddings" in line


@pytest.mark.parametrize(
    "step",
    [
        {"top_fraction": {"score": "clip_score.text"}},
        {"weighted_score": {"weights": {"clip_score": 1, "clip_score.text": 1}}},
        {"min_scores": {"scores": {"clip_score.text": 1}}},
    ],
)
def test_a_score_that_is_no_number_is_named_with_those_that_are(tmp_path, capsys, step):
    [line] = lines(tmp_path, capsys, STORED, step)
    ((name, parameters),) = step.items()
    assert f"{name}.{next(iter(parameters))}: the column 'clip_score.text' holds no numbers" in line
    assert line.endswith("such as clip_score")


@pytest.mark.parametrize("column", ["clip_score", "clip_score.embedding", "nearest_concepts", "extra"])
def test_concept_balance_refuses_a_column_without_concepts(tmp_path, capsys, column):
    concepts = {"nearest_concepts": {"embeddings": "t.npy"}}
    [line] = lines(tmp_path, capsys, STORED, concepts, {"concept_balance": {"concepts": column}})
    assert f"concept_balance.concepts: the column '{column}' holds no numbers of concepts" in line
    [line] = lines(tmp_path, capsys, STORED, {"concept_balance": {}}, concepts)
    assert "Move step 3 behind step 4, nearest_concepts" in line


def test_clip_loss_refuses_texts_of_another_column_than_its_images(tmp_path, capsys):
    other = {"clip_score": {**CLIP, "embeddings": True, "label": "b"}}
    [line] = lines(tmp_path, capsys, STORED, other, TEXTS, {"clip_loss": {"embedding": "b.embedding"}})
    assert "clip_loss.embedding: b.embedding is not the column whose texts text_embedding embeds" in line


def test_a_stored_score_may_not_replace_a_field_that_rows_have(tmp_path, capsys):
    loss = {"clip_loss": {"fraction": 1, "store_as": "similarity"}}
    [line] = lines(tmp_path, capsys, STORED, TEXTS, loss)
    assert "clip_loss.store_as: rows have a field 'similarity' already" in line
    two = [{"clip_loss": {"store_as": "s", "label": label}} for label in "ab"]
    [line] = lines(tmp_path, capsys, STORED, TEXTS, *two)
    assert "b.store_as: rows have a field 's' already" in line


def test_a_misspelt_field_is_found_behind_a_step_that_adds_another(tmp_path, capsys):
    loss = {"clip_loss": {"fraction": 1, "store_as": "s_clip"}}
    [line] = lines(tmp_path, capsys, STORED, TEXTS, loss, {"source_score": {"of": "s_clp"}})
    assert "none of the first 1 rows has a number in 's_clp'" in line and "Did you mean 's_clip'?" in line
    assert not lines(tmp_path, capsys, STORED, TEXTS, loss, {"source_score": {"of": "s_clip"}})
