"""Rows that the layout of the tars cannot hold are dropped before packing, and what a recipe shows of it is told by check."""

import json

import pytest

from tests.loader.tars import write_tar
from tests.rows import document, table
from tests.sources.pictures import picture
from vlmdata import run
from vlmdata.build import check
from vlmdata.engine.audit import audit
from vlmdata.engine.fit import Fit
from vlmdata.recipe import parse
from vlmdata.step import RecipeError

IMAGE = {"url": "http://a.org/1.jpg"}
GONE = {**IMAGE, "drop": "image_size", "reason": "min_side"}


def test_one_image_and_at_most_one_text_fit():
    parts = [[IMAGE, "a"], [IMAGE], [IMAGE, GONE, "a"], [IMAGE, IMAGE], [IMAGE, "a", "b"], ["a"], [GONE, "a"]]
    rows = Fit().run(table([document(*part) for part in parts]))
    assert rows["reason"].to_pylist() == [None, None, None, "two_images", "two_texts", "no_image", "no_image"]
    assert rows["drop"].to_pylist() == [None] * 3 + ["shards"] * 4
    assert rows["value"].to_pylist()[3:] == [2.0, 2.0, None, None]


def test_a_dropped_row_keeps_its_first_reason():
    rows = table([{**document(IMAGE, IMAGE), "drop": "source", "reason": "bad_record"}])
    assert Fit().run(rows)["reason"].to_pylist() == ["bad_record"]


def build(folder, layout):
    files = [(f"0.{name}.png", picture(9 + number)) for number, name in enumerate(("left", "right"))]
    write_tar(folder / "tars" / "a.tar", [*files, ("0.txt", b"a pair"), ("1.png", picture()), ("1.txt", b"one")])
    source = {"type": "webdataset", "path": str(folder / "tars")}
    recipe = {"source": source, "steps": [{"resize": {"mode": "no"}}], "shards": {"layout": layout}}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return run(folder / "recipe.yaml", folder / layout, local=True, workers=1)


@pytest.mark.parametrize(
    ("layout", "kept", "dropped"),
    [("captions", 1, [{"step": "shards", "reason": "two_images", "rows": 1}]), ("documents", 2, [])],
)
def test_a_run_ends_with_what_fits(tmp_path, layout, kept, dropped):
    manifest = build(tmp_path, layout)
    assert (manifest["rows"], manifest["kept"], manifest["dropped"]) == (2, kept, dropped)
    assert audit(tmp_path / layout, read_bytes=True) == []
    again = build(tmp_path, layout)
    assert again == manifest


def recipe_of(folder, source, layout):
    (folder / "a.json").write_text("[]")
    return parse({"source": {"type": source, "path": str(folder / "a.json")}, "shards": {"layout": layout}})


@pytest.mark.parametrize("source", ["messages", "llava_json"])
def test_conversations_as_captions_are_refused(tmp_path, source):
    with pytest.raises(RecipeError, match=r"gives conversations.*set shards\.layout to documents"):
        check(recipe_of(tmp_path, source, "captions"))


def test_documents_as_captions_are_told(tmp_path, capsys):
    for source, layout, told in (("mmc4", "captions", True), ("mmc4", "documents", False), ("html", "captions", True)):
        check(recipe_of(tmp_path, source, layout))
        assert ("set shards.layout to documents" in capsys.readouterr().err) == told
