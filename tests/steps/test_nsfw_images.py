"""Images are judged by a small real classifier made here, which distinguishes red pictures from blue and grey ones."""

import io
import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from tests.fixtures import fixture
from tests.images.pictures import saved
from tests.parts import open_part
from tests.rows import document, table
from vlmdata.engine.work.ingest import Ingest
from vlmdata.models.weights_identity import identity
from vlmdata.row import drop_rows
from vlmdata.step import RecipeError
from vlmdata.steps.nsfw_images import NsfwImages
from vlmdata.steps.resize import Resize

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "grey": (128, 128, 128)}
LABELS = ["neutral", "porn", "hentai"]  # names in place of grey, red and blue


def picture(colour: str, size: int = 32) -> Image.Image:
    return Image.new("RGB", (size, size), COLOURS[colour])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Train a vision transformer of 10,000 parameters until it distinguishes the three colours."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(**sizes, image_size=16, patch_size=8, id2label=dict(enumerate(LABELS)))
    made = ViTForImageClassification(config)
    processor = ViTImageProcessor(size={"height": 16, "width": 16})
    pixels = processor([picture(colour) for colour in ("grey", "red", "blue")], return_tensors="pt")["pixel_values"]
    optimizer = torch.optim.Adam(made.parameters(), 0.01)
    for _ in range(150):
        optimizer.zero_grad()
        made(pixels, labels=torch.arange(3)).loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("classifier")
    made.save_pretrained(folder)
    processor.save_pretrained(folder)
    torch.set_num_threads(before)
    return str(folder)


def rows_of(folder, *documents: list[str]):
    """Return documents of pictures in these colours, with the pictures in the partition's blob."""

    def image(colour: str) -> dict:
        out = io.BytesIO()
        picture(colour).save(out, "PNG")
        return {"data": out.getvalue()}

    part = open_part(folder)
    rows = table([document("A text.", *map(image, colours)) for colours in documents])
    return Ingest(resize=Resize(mode="no")).run(rows, part), part


def test_an_image_that_cannot_be_decoded_is_dropped_and_the_others_are_judged(tmp_path, model):
    rows, part = rows_of(tmp_path, ["grey", "grey"], ["red"])
    for body in (b"no image", saved(Image.new("1", (9000, 9000)), "png")):
        places = {"blob": part.blob.name, "offset": part.blob.add(body), "size": len(body)}
        rows = pa.concat_tables([rows, table([document("A text.", places)])])
    rows = NsfwImages(model=model, batch=3).run(rows, part)
    assert rows["reason"].to_pylist() == [None, "porn", "not_decodable", "not_decodable"]


def test_a_document_with_one_bad_image_is_dropped(tmp_path, model):
    rows, part = rows_of(tmp_path, ["grey", "grey"], ["grey", "red"], ["blue"])
    rows = NsfwImages(model=model, batch=3).run(rows, part)
    assert list(zip(rows["drop"].to_pylist(), rows["reason"].to_pylist(), rows["threshold"].to_pylist(), strict=True)) == [
        (None, None, None),
        ("nsfw_images", "porn", 0.85),
        ("nsfw_images", "hentai", 0.9),
    ]
    assert rows["nsfw_images.label"].to_pylist()[1][2] == "porn" and rows["nsfw_images"].to_pylist()[1][2] > 0.95


def test_only_the_bad_image_may_be_dropped_and_new_thresholds_need_no_model(tmp_path, model):
    rows, part = rows_of(tmp_path, ["grey", "red"])
    measured = NsfwImages(model=model, max_probability=[1, 1]).run(rows, part)
    alone = NsfwImages(model=model, rejects="image", label="nsfw_images").decide(measured)
    assert alone["drop"].to_pylist() == [None]
    assert [image and image["reason"] for image in alone["images"].to_pylist()[0]] == [None, None, "porn"]
    assert measured["drop"].to_pylist() == [None]


def test_a_row_that_an_earlier_step_rejected_keeps_its_verdict(tmp_path, model):
    rows, part = rows_of(tmp_path, ["grey"], ["red", "grey"], ["red"])
    rows = drop_rows(rows, np.array([False, True, False]), "image_size", reason="min_side")
    found = NsfwImages(model=model, batch=2).run(rows, part)
    assert found["reason"].to_pylist() == [None, "min_side", "porn"]


def test_a_score_does_not_depend_on_other_images(tmp_path, model):
    rows, part = rows_of(tmp_path, ["red", "grey", "blue", "red", "grey"])
    scores = [NsfwImages(model=model, batch=size).run(rows, part)["nsfw_images"].to_pylist() for size in (2, 2, 5)]
    assert scores[0] == scores[1] and scores[0][0] == pytest.approx(scores[2][0], abs=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": ["pron"], "max_probability": [0.9]}, "no label 'pron'. Did you mean 'porn'"),
        ({"labels": ["porn"]}, "one max_probability for each"),
        ({"max_probability": [0.2, 0.9]}, r"\[0.5, 1\]"),
        ({"model": "/nowhere/at-all"}, "no folder"),
    ],
)
def test_mistakes_are_reported_before_any_work(model, given, message):
    with pytest.raises(RecipeError, match=message):
        NsfwImages(**{"model": model, **given}).check()
    NsfwImages(model=model).check()


CONVERTED = fixture("I_nsfwjs/model")


def test_the_classifier_of_obelics_judges_pictures(tmp_path):
    part = open_part(tmp_path)
    bodies = [fixture("A_captioned/coco_free_licence/000000269314.jpg").read_bytes(), b"no picture"]
    places = [{"blob": part.blob.name, "offset": part.blob.add(body), "size": len(body)} for body in bodies]
    rows = table([document("A text.", place) for place in places])
    step = NsfwImages(model=str(CONVERTED), labels=["drawings", "porn"], max_probability=[0.5, 0.85], batch=2)
    step.check()
    found = step.run(rows, part)
    bicubic, corners = json.loads(fixture("I_nsfwjs/probabilities.json").read_text())[
        "tests/fixtures/A_captioned/coco_free_licence/000000269314.jpg"
    ]
    assert found["nsfw_images.label"].to_pylist()[0][1] == "drawings"
    assert found["nsfw_images"].to_pylist()[0][1] == pytest.approx(bicubic[0], abs=1e-4) != pytest.approx(corners[0], abs=1e-2)
    assert found["reason"].to_pylist() == [None, "not_decodable"]
    assert step.packages_needed() == ("safetensors", "torch", "torchvision")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resize": "nearest"}, r"config\.json: resize must be bicubic or bilinear_corners, not 'nearest'"),
        ({"quantization": {"Conv1/kernel": [0, 1]}}, r"config\.json: quantization must hold \[min, scale\] for each tensor"),
        ({"id2label": {"0": "drawings"}}, r""),
    ],
)
def test_a_damaged_converted_folder_is_refused_by_check(tmp_path, change, message):
    config = json.loads((CONVERTED / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    (tmp_path / "model.safetensors").write_bytes((CONVERTED / "model.safetensors").read_bytes())
    with pytest.raises(
        RecipeError, match=rf"^nsfw_images\.model: .*{message}" if message else r"^nsfw_images\.labels: the model"
    ):
        NsfwImages(model=str(tmp_path)).check()
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((CONVERTED / "model.safetensors").read_bytes()[:-1])
    with pytest.raises(RecipeError, match=r"^nsfw_images\.model: .*model\.safetensors is cut off"):
        NsfwImages(model=str(tmp_path)).check()


@pytest.mark.parametrize("text", ["[]", "no json", "[" * 100_000, '{"id2label": []}'])
def test_a_config_that_is_not_one_of_a_classifier_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RecipeError, match=r"^nsfw_images\.(model: \S+ is not a model folder|labels: the model has no label)"):
        NsfwImages(model=str(tmp_path)).check()


def test_other_weights_change_the_identity_of_the_step(tmp_path, model):
    (tmp_path / "weights.bin").write_bytes(b"x" * 5_000_000)
    first = identity(str(tmp_path))
    (tmp_path / "weights.bin").write_bytes(b"x" * 4_999_999 + b"y")
    assert identity(str(tmp_path)) != first and NsfwImages(model=model).identity() != "somebody/something"
    assert NsfwImages(model="somebody/something").identity() == "somebody/something"
