"""Runs that draw marks: what reaches the shards, what a second run repeats, and that a kill changes nothing."""

import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.images.pictures import photo, saved
from tests.steps.found_marks import colour_in, found, overlap
from vlmdata import run
from vlmdata.images.decode import decode
from vlmdata.recipe import parse

pytestmark = pytest.mark.whole

BOX = [40.0, 30.0, 160.0, 150.0]


def source(folder: Path, count: int) -> dict[str, Any]:
    """Write pictures with boxes in COCO's form, and return the source that reads them."""
    (folder / "images").mkdir(parents=True)
    images, notes = [], []
    for n in range(count):
        (folder / "images" / f"{n}.jpg").write_bytes(saved(photo(240, 200, n) // 4 + 96, "JPEG", quality=95))
        images.append({"id": n, "file_name": f"{n}.jpg", "width": 240, "height": 200})
        x0, y0, x1, y1 = BOX
        notes.append({"id": n, "image_id": n, "category_id": 18, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    tree = {"images": images, "annotations": notes, "categories": [{"id": 18, "name": "dog"}]}
    (folder / "instances.json").write_text(json.dumps(tree))
    return {"type": "coco", "path": str(folder / "instances.json"), "images": str(folder / "images")}


def recipe(where: dict[str, Any], *steps: Any, **marks: Any) -> dict[str, Any]:
    step = {"visual_prompt": {"kinds": {"box": 1}, "questions": {"name": 1}, **marks}}
    return {"source": where, "steps": [*steps, step], "shards": {"layout": "documents"}, "part_rows": 8}


def samples(out: Path) -> list[tuple[dict[str, Any], bytes]]:
    found = []
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {name: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
        found += [(json.loads(data), members[f"{name[:-5]}.0.jpg"]) for name, data in members.items() if name.endswith(".json")]
    return found


def tars(out: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(out.glob("*.tar"))]


def test_shards_hold_marked_pictures_and_what_was_drawn(tmp_path):
    resize = {"resize": {"mode": "keep_ratio", "size": 150}}
    out = tmp_path / "out"
    run(parse(recipe(source(tmp_path / "in", 12), resize)), out, local=True, workers=1)
    assert len(samples(out)) == 12
    for about, body in samples(out):
        assert about["roles"] == ["user", "user", "assistant"] and about["texts"][2] == "dog"
        own = about["visual_prompt"]
        assert own["kinds"] == ["name"] and own["marks"][0]["colour"] == colour_in(about["texts"][1])
        (box,) = about["metadata"][0]["boxes"]
        assert box == pytest.approx([edge * 0.75 for edge in BOX])
        assert overlap(found(decode(body).pixels, own["marks"][0]["colour"]), tuple(box)) >= 0.8
        with Image.open(io.BytesIO(body)) as image:
            assert image.size == (180, 150) == (about["metadata"][0]["width"], about["metadata"][0]["height"])
        assert "scores" not in about


def test_a_second_run_draws_nothing_again_and_another_question_neither(tmp_path):
    where, out = source(tmp_path / "in", 10), tmp_path / "out"
    run(parse(recipe(where)), out, local=True, workers=1)
    work = {str(path): path.stat().st_mtime_ns for path in (out / "work" / "data").iterdir()}
    first, bodies = tars(out), [body for _, body in samples(out)]
    run(parse(recipe(where)), out, local=True, workers=1)
    assert tars(out) == first
    run(parse(recipe(where, questions={"yes_no": 1})), out, local=True, workers=1)
    assert {str(path): path.stat().st_mtime_ns for path in (out / "work" / "data").iterdir()} == work
    assert {about["texts"][1][:13] for about, _ in samples(out)} == {"Is the object"}
    assert [body for _, body in samples(out)] == bodies


def test_a_killed_run_resumes_and_writes_the_same_bytes_as_one_with_more_workers(tmp_path):
    where, out = source(tmp_path / "in", 64), tmp_path / "out"
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe(where)))
    command = [sys.executable, "-m", "vlmdata.cli", "run", str(path), "--out", str(out), "--local", "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list((out / "work" / "log").glob("*/*.json")):
            time.sleep(0.01)
        process.kill()
    assert not (out / "manifest.json").exists()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    run(parse(recipe(where)), tmp_path / "other", local=True, workers=2)
    assert len(samples(out)) == 64 and tars(out) == tars(tmp_path / "other")
