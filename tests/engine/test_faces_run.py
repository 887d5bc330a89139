"""Runs that blur faces: what reaches the shards, what a second run repeats, and what a takedown erases."""

import base64
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from tests.fixtures import fixture
from tests.steps.group_photo import group_photo
from vlmdata import run
from vlmdata.images.measure import sharpness
from vlmdata.recipe import parse
from vlmdata.steps.image_detail import small_pixels
from vlmdata.takedown import forget

pytestmark = pytest.mark.whole

WEIGHTS = str(fixture("J_faces/mtcnn"))
BLUR = {"faces": {"weights": WEIGHTS, "blur": True}}
KEEP = {"resize": {"mode": "no", "skip_reencode": True}}  # images keep their bytes, so that these can be searched for


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("J_faces/photos/000000011149", "A_captioned/coco_free_licence/000000012667"):
        shutil.copy(fixture(f"{name}.jpg"), folder)
    (folder / "000000000077.jpg").write_bytes(group_photo())
    for photo in list(folder.iterdir()):
        photo.with_suffix(".txt").write_text(f"The photo {photo.stem}.")
    return folder


def build(photos: Path, out: Path, *steps) -> dict:
    return run(parse({"source": {"type": "files", "path": str(photos)}, "steps": list(steps)}), out, local=True, workers=1)


def samples(out: Path) -> dict[str, tuple[dict, bytes]]:
    """Return the JSON and the image of each sample, by caption."""
    with tarfile.open(out / "00000.tar") as tar:
        members = {name: tar.extractfile(name).read() for name in tar.getnames()}
    facts = {name[:-5]: json.loads(data) for name, data in members.items() if name.endswith(".json")}
    return {about["caption"][10:-1].lstrip("0"): (about, members[f"{key}.jpg"]) for key, about in facts.items()}


def work(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (out / "work" / "data").iterdir()}


def test_shards_hold_the_blurred_images_and_later_steps_see_them(photos, tmp_path):
    build(photos, tmp_path / "out", KEEP, BLUR, {"image_detail": {}})
    found = samples(tmp_path / "out")
    assert {name: about["scores"]["faces"] for name, (about, _) in found.items()} == {"77": 11, "11149": 1, "12667": 0}
    for name, (about, body) in found.items():
        original = (photos / f"{name:0>12}.jpg").read_bytes()
        assert (body == original) == (name == "12667")
        assert about["sha256"] == hashlib.sha256(original).hexdigest()
        assert about["scores"]["image_detail.sharpness"] == pytest.approx(sharpness(small_pixels(body, 256)), abs=1e-3)
    shown = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file() and "work" not in path.parts)
    assert all((photos / f"{name:0>12}.jpg").read_bytes()[2000:4000] not in shown for name in ("77", "11149"))


def test_a_resize_behind_the_blur_keeps_the_facts_of_the_fetched_image(photos, tmp_path):
    small = {"resize": {"mode": "keep_ratio_largest", "size": 64, "label": "small"}}
    build(photos, tmp_path / "out", KEEP, BLUR, small)
    for name, (about, body) in samples(tmp_path / "out").items():
        original = photos / f"{name:0>12}.jpg"
        assert about["sha256"] == hashlib.sha256(original.read_bytes()).hexdigest()
        with Image.open(original) as before, Image.open(io.BytesIO(body)) as after:
            assert (about["original_width"], about["original_height"]) == before.size
            assert (about["width"], about["height"]) == after.size
    original = photos / "000000000077.jpg"
    forget(str(tmp_path / "out"), sha256=[hashlib.sha256(original.read_bytes()).hexdigest()])
    assert set(samples(tmp_path / "out")) == {"11149", "12667"}


def test_a_second_run_blurs_nothing_again_and_other_limits_measure_nothing(photos, tmp_path):
    build(photos, tmp_path / "out", KEEP, BLUR)
    before, bodies = work(tmp_path / "out"), {name: body for name, (_, body) in samples(tmp_path / "out").items()}
    build(photos, tmp_path / "out", KEEP, BLUR)
    assert work(tmp_path / "out") == before
    few = {"faces": {**BLUR["faces"], "max_faces": 5, "rejects": "row"}}
    assert [(line["reason"], line["rows"]) for line in build(photos, tmp_path / "out", KEEP, few)["dropped"]] == [
        ("max_faces", 1)
    ]
    assert work(tmp_path / "out") == before
    assert {name: body for name, (_, body) in samples(tmp_path / "out").items()} == {
        n: b for n, b in bodies.items() if n != "77"
    }


def test_a_step_behind_measures_again_once_images_are_blurred(photos, tmp_path):
    detail = {"image_detail": {}}
    build(photos, tmp_path / "out", KEEP, {"faces": {"weights": WEIGHTS}}, detail)
    sharp = {name: about["scores"]["image_detail.sharpness"] for name, (about, _) in samples(tmp_path / "out").items()}
    build(photos, tmp_path / "out", KEEP, BLUR, detail)
    soft = {name: about["scores"]["image_detail.sharpness"] for name, (about, _) in samples(tmp_path / "out").items()}
    assert (soft["77"] < sharp["77"], soft["12667"] == sharp["12667"]) == (True, True)


def test_stored_boxes_are_blurred_without_detecting_again(photos, tmp_path):
    find = {"faces": {"weights": WEIGHTS, "label": "found"}}
    build(photos, tmp_path / "out", KEEP, find)
    measured = len(work(tmp_path / "out"))
    blur = {"faces": {"boxes": "found.boxes", "blur": True, "min_probability": 0.9}}
    build(photos, tmp_path / "out", KEEP, find, blur)
    assert len(work(tmp_path / "out")) == measured + 2  # one table and one blob, of the second step
    assert samples(tmp_path / "out")["77"][1] != (photos / "000000000077.jpg").read_bytes()


def test_forgetting_an_image_erases_its_blurred_and_its_original_bytes(photos, tmp_path):
    out = tmp_path / "out"
    build(photos, out, {"resize": {"mode": "no", "quality": 90}}, BLUR)
    about, body = samples(out)["77"]
    blobs = [path for path in (out / "work" / "data").iterdir() if path.suffix == ".blob"]
    assert any(body in path.read_bytes() for path in blobs) and len(blobs) == 2
    forget(out, sha256=[about["sha256"]])
    left = samples(out)
    assert set(left) == {"11149", "12667"}
    assert not any(body[1000:3000] in path.read_bytes() for path in out.rglob("*") if path.is_file())
    erased = [path.read_bytes() for path in blobs if path.exists()]
    assert sum(bytes(40_000) in data for data in erased) == 2  # zeros in place of the image in each blob


def test_an_image_that_an_earlier_step_rejects_has_the_verdict_of_the_latest_run(photos, tmp_path):
    """The blurred images are stored with all fields of the row's images, so also with old verdicts."""
    urls = [
        "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode() for path in sorted(photos.glob("*.jpg"))[1:]
    ]
    content = [*({"type": "image_url", "image_url": {"url": url}} for url in urls), {"type": "text", "text": "What?"}]
    answer = {"role": "assistant", "content": "A thing."}
    (tmp_path / "m.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": content}, answer]}))

    def threshold(limit: int) -> list:
        source = {"type": "messages", "path": str(tmp_path / "m.jsonl")}
        steps = [KEEP, {"image_size": {"min_side": limit}}, BLUR]
        tree = {"source": source, "steps": steps, "shards": {"layout": "documents"}}
        run(parse(tree), tmp_path / "out", local=True, workers=1)
        return [(image["reason"], image["threshold"]) for line in ledger(tmp_path / "out") for image in line["images"] if image]

    assert sorted(threshold(200), key=str) == [("min_side", 200.0), (None, None)]
    assert sorted(threshold(210), key=str) == [("min_side", 210.0), (None, None)]


def ledger(out: Path) -> list[dict]:
    import pyarrow.parquet as pq

    return [row for path in sorted((out / "ledger").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
