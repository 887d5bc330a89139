import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.parts import open_part
from tests.rows import captions
from tests.steps.test_clip_score import MODEL
from vlmdata.demo.recipe import figures
from vlmdata.models.clip import Clip
from vlmdata.models.embedded_names import names_in
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.concept_balance import ConceptBalance
from vlmdata.steps.nearest_concepts import NearestConcepts

pytestmark = pytest.mark.whole


def embedded(*vectors: list[float] | None) -> pa.Table:
    values = [[np.array(v, "<f2").tobytes() if v else None, None] for v in vectors]
    return set_column(captions(["t"] * len(vectors)), "clip_score.embedding", pa.array(values, pa.list_(pa.binary())))


def ids(rows: pa.Table) -> list[list[int] | None]:
    stored = rows["nearest_concepts.ids"].to_pylist()
    return [None if row[0] is None else np.frombuffer(row[0], "<i4").tolist() for row in stored]


def axes(tmp_path: Path, **parameters: object) -> NearestConcepts:
    np.save(tmp_path / "concepts.npy", np.array([[2.0, 0], [0, 3], [-1, 0]]))
    return NearestConcepts(embeddings=str(tmp_path / "concepts.npy"), **{"top": 2, **parameters})  # type: ignore[arg-type]


def test_the_nearest_concepts_are_stored_in_order_with_name_and_cosine(tmp_path):
    (tmp_path / "names.txt").write_text("dog\n\n cat \nbird\ncat\n")
    step = axes(tmp_path, names=str(tmp_path / "names.txt"))
    step.check()
    assert step.needed() == ()
    rows = step.run(embedded([3, 1], [1, 3], [-1, 0.1], None, [0, 0], [float("nan"), 1]))
    assert [row[0] for row in rows["nearest_concepts"].to_pylist()] == ["dog", "cat", "bird", None, None, None]
    assert ids(rows) == [[0, 1], [1, 0], [2, 1], None, None, None]
    assert rows["nearest_concepts.cosine"].to_pylist()[0][0] == pytest.approx(3 / 10**0.5, abs=1e-3)
    assert rows["drop"].null_count == 6
    assert ConceptBalance(share=1, unscored="reject").run(rows)["reason"].to_pylist() == [None] * 3 + ["no_concept"] * 3


def test_concepts_without_names_are_called_by_their_numbers(tmp_path):
    assert axes(tmp_path).run(embedded([0, 1]))["nearest_concepts"].to_pylist() == [["1", None]]


def names_step(tmp_path: Path, names: list[str], **parameters: object) -> NearestConcepts:
    (tmp_path / "names.txt").write_text("\n".join(names))
    settings = {"model": MODEL, "precision": "fp32", "top": 3, **parameters}
    return NearestConcepts(names=str(tmp_path / "names.txt"), **settings)  # type: ignore[arg-type]


def test_names_are_embedded_in_the_prompt_once_into_a_file(tmp_path):
    names = [figure["caption"] for figure in figures()[:40]]
    step = names_step(tmp_path, names, prompt="{}")
    step.check()
    units = Clip(MODEL, "", "fp32").embed_texts(names, 16)
    rows = embedded(*units[:6].tolist())
    assert [own[0] for own in ids(step.run(rows, open_part(tmp_path)))] == list(range(6))
    [made] = tmp_path.glob("concepts-*")
    assert np.abs(np.load(made) - units).max() < 1e-3
    before = made.stat().st_mtime_ns
    assert ids(step.run(rows, open_part(tmp_path))) == ids(step.run(rows, open_part(tmp_path)))
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("concepts-*")] == [before]
    names_step(tmp_path, names).run(rows, open_part(tmp_path))
    assert len(list(tmp_path.glob("concepts-*"))) == 2, "another prompt, another file"


def test_other_concepts_or_prompts_are_another_measurement(tmp_path):
    before = names_step(tmp_path, ["a", "b", "c"]).identity()
    assert names_step(tmp_path, ["a", "b", "d"]).identity() != before
    np.save(tmp_path / "concepts.npy", np.eye(2))
    assert NearestConcepts(embeddings=str(tmp_path / "concepts.npy")).identity() != axes(tmp_path).identity()
    assert {"prompt", "top", "precision"} <= set(NearestConcepts.measured_by)


def test_unusable_concepts_are_refused_before_any_work(tmp_path):
    with pytest.raises(RecipeError, match="set `names`"):
        NearestConcepts().check()
    with pytest.raises(RecipeError, match=r"nearest_concepts\.names: there is no file"):
        NearestConcepts(names="/nowhere.txt").check()
    with pytest.raises(RecipeError, match="has no names"):
        names_step(tmp_path, ["", " "]).check()
    with pytest.raises(RecipeError, match=r"top must lie in 1\.\.2"):
        names_step(tmp_path, ["a", "b"]).check()
    with pytest.raises(RecipeError, match=r"has 3 rows, but .* has 2 different names"):
        (tmp_path / "names.txt").write_text("a\nb")
        axes(tmp_path, names=str(tmp_path / "names.txt")).check()
    with pytest.raises(RecipeError, match=r"prompt must contain \{\} once"):
        names_step(tmp_path, ["a", "b", "c"], prompt="a photo").check()
    with pytest.raises(RecipeError, match=r"nearest_concepts\.cache: cannot write in the folder /nowhere"):
        names_step(tmp_path, ["a", "b", "c"], cache="/nowhere").check()
    np.save(tmp_path / "zero.npy", np.array([[1.0, 0], [np.nan, 1]]))
    with pytest.raises(RecipeError, match=r"row 1 of .* is all zeros or not finite"):
        NearestConcepts(embeddings=str(tmp_path / "zero.npy"), top=1).check()
    with pytest.raises(RecipeError, match="have the width 2, but"):
        axes(tmp_path).run(embedded([1, 0, 0]))


def test_a_file_of_embeddings_appears_only_when_it_is_complete(tmp_path):
    step = names_step(tmp_path, ["a", "b", "c"])
    part = open_part(tmp_path)
    part.kept = lambda *_: 1 / 0  # the model cannot be loaded
    with pytest.raises(ZeroDivisionError):
        step.run(embedded([1.0] * 128), part)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".npy")]


def test_a_byte_order_mark_is_no_part_of_a_name_and_other_encodings_are_refused(tmp_path):
    (tmp_path / "bom.txt").write_bytes("caf\u00e9\r\ncat\r\n\r\ncat\r\n".encode("utf-8-sig"))
    assert names_in(str(tmp_path / "bom.txt")) == ["caf\u00e9", "cat"]
    (tmp_path / "latin.txt").write_bytes("caf\u00e9\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"nearest_concepts\.names: .*latin\.txt is not in UTF-8"):
        NearestConcepts(names=str(tmp_path / "latin.txt")).check()


def test_a_damaged_file_of_embedded_names_is_named_before_any_work(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    step = NearestConcepts(names=str(tmp_path / "names.txt"), model=MODEL, top=1)
    context = open_part(tmp_path)
    images = captions(["a"])
    clip = Clip(MODEL, "", "fp32").embed_texts(["a cat"])[0].astype("<f2").tobytes()
    step.run(set_column(images, "clip_score.embedding", pa.array([[clip, None]], pa.list_(pa.binary()))), context)
    step.check()
    (file,) = tmp_path.glob("concepts-*.npy")
    whole = file.read_bytes()
    for data in (whole[:-10], b"", whole[:40]):
        file.write_bytes(data)
        with pytest.raises(RecipeError, match=r"nearest_concepts\.cache: .* is damaged\. Delete it"):
            step.check()
