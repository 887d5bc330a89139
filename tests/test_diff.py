"""Two datasets are compared row by row: rows added, removed or with changed bytes, and the step that caused each change."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine.site import download, picture, site
from tests.generation.labelled_source import SCENES
from tests.generation.replies import NAME
from tests.loader.tars import write_tar
from tests.servers import reply
from vlmdata import run
from vlmdata.cli import main
from vlmdata.compare import diff
from vlmdata.recipe import parse

pytestmark = pytest.mark.whole


def test_every_change_of_a_row_is_shown_with_its_step(tmp_path, capsys):
    with site(tmp_path, 64) as web:
        run(web.recipe, tmp_path / "a", local=True, workers=1)
        run(web.recipe, tmp_path / "loose", overrides={"image_size.min_side": 10}, local=True, workers=1)
        run(web.recipe, tmp_path / "small", overrides={"resize.size": 40}, local=True, workers=1)
        table = pq.read_table(tmp_path / "urls.parquet")
        pq.write_table(table.slice(2), tmp_path / "urls.parquet")
        run(web.recipe, tmp_path / "fewer", local=True, workers=1)

    def ways(a, b):
        return {(change.before, change.after): change.rows for change in diff(tmp_path / a, tmp_path / b)}

    assert ways("a", "a") == {}
    assert ways("a", "loose") == {("image_size: min_side", "kept"): 4}
    assert ways("a", "fewer") == {("kept", "not there"): 2}
    assert ways("fewer", "a") == {("not there", "kept"): 2}
    assert ways("a", "small") == {("kept", "kept, but changed: image by resize"): 48}
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "loose")]) == 0
    assert "4  image_size: min_side -> kept" in capsys.readouterr().out


def test_samples_of_equal_sizes_are_distinguished_by_their_bytes(tmp_path):
    """One picture returns with one bit of its pixels changed. Another is replaced by another picture."""
    steps = [download(), {"resize": {"mode": "no", "skip_reencode": True}}, {"image_detail": {}}]
    with site(tmp_path, 32, steps=steps) as web:
        run(web.recipe, tmp_path / "a", local=True, workers=1)
        page = web.bodies["/good/1.jpg"]
        place = page.index(b"\xff\xda") + 40
        web.server.routes["/good/1.jpg"] = reply(page[:place] + bytes([page[place] ^ 1]) + page[place + 1 :])
        web.server.routes["/good/17.jpg"] = reply(picture(5))
        run(web.recipe, tmp_path / "b", local=True, workers=1)
    ways = {change.after: change.rows for change in diff(tmp_path / "a", tmp_path / "b")}
    assert sum(ways.values()) == 2 and all(way.startswith("kept, but changed: image by download") for way in ways)


def test_a_changed_text_names_the_step_that_rewrites_it(tmp_path):
    steps = [download(), {"resize": {"size": 48}}, {"pii_remove": {}}]
    with site(tmp_path, 8, steps=steps) as web:
        table = pq.read_table(tmp_path / "urls.parquet")
        texts = [f"write to person{n}@example.org for more" for n in range(8)]
        pq.write_table(table.set_column(1, "caption", pa.array(texts)), tmp_path / "urls.parquet")
        run(web.recipe, tmp_path / "a", local=True, workers=1)
        web.recipe.write_text(web.recipe.read_text().replace("- pii_remove: {}\n", ""))
        run(web.recipe, tmp_path / "b", local=True, workers=1)
    assert [(change.after, change.rows) for change in diff(tmp_path / "b", tmp_path / "a")] == [
        ("kept, but changed: text by pii_remove and score by pii_remove", 8)
    ]


def test_turns_that_a_step_rejects_are_its_change_and_not_that_of_the_source(tmp_path, monkeypatch):
    """The dog of the second answer is in no scene."""
    monkeypatch.setenv("PYTHONPATH", ":".join(sys.path))
    (tmp_path / "count").write_text("1")
    talk = "Question:\nWhat shines?\n===\nAnswer:\nA lamp.\n===\nQuestion:\nWho sleeps?\n===\nAnswer:\nA dog.\n==="
    step = {"generator": {NAME: {"log": f"{tmp_path}/log", "instead": {"Sentences": talk}}}, "kinds": {"conversation": 1}}
    for name, is_checked in (("a", True), ("b", False)):
        steps = [{"resize": {}}, {"instruct": {**step, "check_objects": is_checked}}]
        source = {"type": SCENES, "path": f"{tmp_path}/count"}
        recipe = parse({"source": source, "shards": {"layout": "documents"}, "steps": steps})
        assert run(recipe, tmp_path / name, local=True, workers=1)["kept"] == 1
    (change,) = diff(tmp_path / "a", tmp_path / "b")
    assert change.after == "kept, but changed: text by instruct and instruct by instruct"


def test_changed_turns_and_tools_count_as_changed_texts(tmp_path):
    talk = {"texts": ["a", "b"], "images": [None] * 2, "metadata": [None] * 2, "roles": ["user", "assistant"]}
    for name, turns in (("a", None), ("b", [None, {"train": False}])):
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name / "0.tar", [("k.json", json.dumps({**talk, "turns": turns}).encode())])
        source = {"type": "webdataset", "path": str(tmp_path / name)}
        made = run(
            parse({"source": source, "shards": {"layout": "documents"}}), tmp_path / f"{name}.out", local=True, workers=1
        )
        assert made["kept"] == 1
    (change,) = diff(tmp_path / "a.out", tmp_path / "b.out")
    assert change.after == "kept, but changed: text by the source"
