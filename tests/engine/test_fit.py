"""Rows that do not fit the layout of the tars are dropped before packing, and `check` warns if the recipe shows this in
advance."""

import base64
import json
import tarfile

import pytest

from tests.loader.tars import write_tar
from tests.rows import document, table
from tests.sources.pictures import picture
from vlmdata import run
from vlmdata.audit import audit
from vlmdata.engine.work.fit import Fit
from vlmdata.recipe import parse
from vlmdata.step import RecipeError
from vlmdata.verify import check

IMAGE = {"url": "http://a.org/1.jpg", "blob": "b", "offset": 0, "size": 9}
GONE = {**IMAGE, "drop": "image_size", "reason": "min_side"}


def test_the_caption_layout_takes_one_image_and_at_most_one_text():
    parts = [[IMAGE, "a"], [IMAGE], [IMAGE, GONE, "a"], [IMAGE, IMAGE], [IMAGE, "a", "b"], ["a"], [GONE, "a"]]
    rows = Fit().run(table([document(*part) for part in parts]))
    assert rows["reason"].to_pylist() == [None, None, None, "two_images", "two_texts", "no_image", "no_image"]
    assert rows["drop"].to_pylist() == [None] * 3 + ["shards"] * 4
    assert rows["value"].to_pylist()[3:] == [2.0, 2.0, None, None]


def test_a_dropped_row_keeps_its_first_reason():
    rows = table([{**document(IMAGE, IMAGE), "drop": "source", "reason": "bad_record"}])
    assert Fit().run(rows)["reason"].to_pylist() == ["bad_record"]


def test_an_image_without_bytes_is_dropped_as_not_downloaded():
    bare, inline = {"url": "http://a.org/2.jpg"}, {"data": b"1"}
    rows = table([document(*parts) for parts in ([bare, "a"], [inline, "a"], [IMAGE, bare, "a"], ["a"])])
    assert Fit().run(rows)["reason"].to_pylist() == ["not_downloaded", None, None, "no_image"]
    assert Fit(pairs_only=False).run(rows)["reason"].to_pylist() == ["not_downloaded", None, None, None]


def talk(image):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A square."}]
    return {"image": image, "conversations": turns}


def test_a_recipe_without_steps_packs_inline_bytes_and_drops_addresses(tmp_path):
    inside = "data:image/png;base64," + base64.b64encode(picture()).decode()
    (tmp_path / "a.json").write_text(json.dumps([talk(inside), talk("http://127.0.0.1:1/a.png")]))
    recipe = {"source": {"type": "llava_json", "path": str(tmp_path / "a.json")}, "shards": {"layout": "documents"}}
    manifest = run(parse(recipe), tmp_path / "out", local=True, workers=1)
    assert manifest["dropped"] == [{"step": "shards", "reason": "not_downloaded", "rows": 1}]
    with tarfile.open(tmp_path / "out" / "00000.tar") as tar:
        assert [tar.extractfile(one).read() for one in tar if one.name.endswith(".png")] == [picture()]


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
def test_a_run_keeps_only_rows_that_fit(tmp_path, layout, kept, dropped):
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
    with pytest.raises(RecipeError, match=r"gives conversations.*Set shards\.layout to documents"):
        check(recipe_of(tmp_path, source, "captions"))


def test_check_warns_of_addresses_that_no_step_fetches(tmp_path):
    (tmp_path / "a.csv").write_text("url,image\nhttp://a.org/1.jpg,\n")
    source = {"type": "url_list", "path": str(tmp_path / "a.csv"), "caption": ""}
    for recipe, is_noted in (({}, True), ({"steps": ["download"]}, False), ({"source": {**source, "image": "image"}}, False)):
        assert any("without the step `download`" in note for note in check(parse({"source": source, **recipe}))) == is_noted


def test_check_warns_of_documents_in_the_caption_layout(tmp_path):
    for source, layout, is_noted in (("mmc4", "captions", True), ("mmc4", "documents", False), ("html", "captions", True)):
        assert any("Set shards.layout to documents" in note for note in check(recipe_of(tmp_path, source, layout))) == is_noted
