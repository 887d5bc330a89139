"""The score of a picture without text is that of clip_score, and the score of one with text is that of its masked copy."""

import json
import tarfile

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from PIL import Image

from tests.images.pictures import photo, saved
from tests.parts import open_part
from tests.rows import captions
from tests.steps.test_text_in_image import drawn
from vlmdata import run
from vlmdata.demo.recipe import HERE, figures
from vlmdata.images.text_regions import masked_image, packed
from vlmdata.recipe import load
from vlmdata.row import set_column
from vlmdata.step import RecipeError
from vlmdata.steps.clip_score import ClipScore
from vlmdata.steps.masked_clip_score import MaskedClipScore

pytestmark = pytest.mark.whole

MODEL = f"local-dir:{HERE / 'clip'}"
REGIONS = np.array([[[0.1, 0.1], [0.9, 0.1], [0.9, 0.6], [0.1, 0.6]], [[0.2, 0.8], [0.5, 0.8], [0.5, 0.9], [0.2, 0.9]]])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows_of(folder, bodies: list[bytes], stored: list[bytes | None], name: str = "text_in_image") -> pa.Table:
    """Return caption pairs of these images, with regions as the step `name` stores them."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.image" for number in range(len(bodies))]
    for path, body in zip(paths, bodies, strict=True):
        path.write_bytes(body)
    fields = {"blob": [str(path) for path in paths], "offset": [0] * len(paths), "size": [len(body) for body in bodies]}
    rows = captions([figure["caption"] for figure in figures()[: len(bodies)]], **fields)
    return set_column(rows, f"{name}.regions", pa.array([[one, None] for one in stored], pa.list_(pa.binary())))


def scores(step: ClipScore, rows: pa.Table, folder) -> list[float | None]:
    return [row[0] for row in step.run(rows, open_part(folder))[step.name].to_pylist()]


def test_the_score_is_that_of_clip_score_on_the_masked_picture(tmp_path):
    bodies = [(HERE / "figures" / figure["file"]).read_bytes() for figure in figures()[:4]]
    regions = [packed(REGIONS), b"", packed(REGIONS[:1]), None]
    rows = rows_of(tmp_path / "a", bodies, regions)
    masked = [masked_image(bodies[0], REGIONS), bodies[1], masked_image(bodies[2], REGIONS[:1]), bodies[3]]
    plain = ClipScore(model=MODEL, precision="fp32", min_score=-1)
    found = scores(MaskedClipScore(model=MODEL, precision="fp32"), rows, tmp_path / "out")
    assert found == scores(plain, rows_of(tmp_path / "b", masked, regions), tmp_path / "out")
    before = scores(plain, rows, tmp_path / "out")
    assert [one == other for one, other in zip(found, before, strict=True)] == [False, True, False, True]


def test_a_picture_is_decoded_once_for_both_scores_if_it_has_no_text(tmp_path):
    bodies = [(HERE / "figures" / figure["file"]).read_bytes() for figure in figures()[:6]]
    rows = rows_of(tmp_path / "a", bodies, [b"", packed(REGIONS), b"", b"", None, packed(REGIONS)])
    part = open_part(tmp_path / "out")
    read, asked = part.image_bytes, []
    part.image_bytes = lambda *place: asked.append(place) or read(*place)
    rows = ClipScore(model=MODEL, precision="fp32", min_score=-1).run(rows, part)
    MaskedClipScore(model=MODEL, precision="fp32").run(rows, part)
    assert len(asked) == 6 + 2


def test_a_low_score_is_rejected_only_with_a_limit_and_a_broken_picture_stays(tmp_path):
    rows = rows_of(tmp_path / "a", [saved(photo(64, 48), "PNG"), b"no image"], [packed(REGIONS)] * 2)
    assert MaskedClipScore(model=MODEL).run(rows, open_part(tmp_path / "out"))["drop"].null_count == 2
    rejected = MaskedClipScore(model=MODEL, min_score=1).run(rows, open_part(tmp_path / "out"))
    assert rejected["reason"].to_pylist() == ["min_score", None]


def test_a_picture_of_one_pixel_is_masked_and_scored(tmp_path):
    rows = rows_of(
        tmp_path / "a", [saved(Image.new("RGB", (1, 1)), "PNG")], [packed(np.array([[[0, 0], [1, 0], [1, 1], [0, 1]]]))]
    )
    (score,) = scores(MaskedClipScore(model=MODEL), rows, tmp_path / "out")
    assert -1 <= score <= 1


def test_the_step_needs_an_earlier_step_that_finds_text(tmp_path):
    steps = f"- masked_clip_score: {{model: '{MODEL}', text_of: text}}\n"
    for before, is_right in (("", False), ("- text_in_image\n", False), ("- text_in_image: {label: text}\n", True)):
        path = tmp_path / "recipe.yaml"
        path.write_text("source: {type: files, path: photos}\nsteps:\n" + before + steps + "shards: {layout: captions}\n")
        if is_right:
            assert load(path).steps[1].columns_read() == ("images", "texts", "text.regions")
        else:
            with pytest.raises(RecipeError, match=r"masked_clip_score reads the column 'text\.regions', which no step"):
                load(path)


def test_a_run_keeps_the_best_share_and_changed_limits_measure_nothing(tmp_path):
    """Two pictures show their captions as text. Their area and words are in the samples, and their regions are not."""
    texts = {"a": "SUMMER SALE", "b": "PARKING", "c": "a drawing", "d": "a noisy photo"}
    (tmp_path / "pictures").mkdir()
    for seed, (name, text) in enumerate(texts.items()):
        picture = drawn(text) if text.isupper() else Image.fromarray(photo(300, 200, seed))
        picture.save(tmp_path / "pictures" / f"{name}.png")
        (tmp_path / "pictures" / f"{name}.txt").write_text(text)
    steps: list[dict] = [
        {"text_in_image": {"recognise": True}},
        {"masked_clip_score": {"model": MODEL}},
        {"top_fraction": {"score": "masked_clip_score", "fraction": 0.5}},
    ]
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    tree = {"source": {"type": "files", "path": str(tmp_path / "pictures")}, "steps": steps, "shards": {"layout": "captions"}}
    recipe.write_text(yaml.safe_dump(tree))
    run(recipe, out, local=True, workers=1)
    assert len(sample_scores(out)) == 3, "the best two of four, and the threshold itself"
    logs = sorted((out / "work" / "log").rglob("*"))
    steps[0]["text_in_image"]["max_overlap"] = 0.9
    steps[2]["top_fraction"]["fraction"] = 1.0
    recipe.write_text(yaml.safe_dump(tree))
    run(recipe, out, local=True, workers=1)
    found = sample_scores(out)
    assert len(found) == 2 and sorted((out / "work" / "log").rglob("*")) == logs
    assert all(one["text_in_image"] == 0 and "text_in_image.regions" not in one for one in found)


def sample_scores(out) -> list[dict]:
    """Return the scores in the JSON of each sample."""
    found = []
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            found += [json.load(tar.extractfile(one))["scores"] for one in tar if one.name.endswith(".json")]
    return found
