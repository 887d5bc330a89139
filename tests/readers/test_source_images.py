import base64
import io
import os

import numpy as np
import pytest
from PIL import Image

from tests.sources.pictures import picture
from vlmdata.readers.source_images import HEADER, LARGEST, file_in_place, image_named, keep_addresses

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8))


@pytest.mark.parametrize(
    "kind, settings",
    [
        ("AVIF", {"quality": 95}),
        ("WEBP", {"lossless": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("TIFF", {"icc_profile": bytes(2 * HEADER)}),
        ("JPEG", {"quality": 100, "subsampling": 0, "icc_profile": bytes(2 * HEADER)}),
        ("BMP", {}),
    ],
)
def test_the_size_of_an_image_longer_than_the_first_read_is_found(tmp_path, kind: str, settings: dict) -> None:
    out = io.BytesIO()
    NOISE.save(out, kind, **settings)
    assert len(out.getvalue()) > HEADER
    (tmp_path / "image").write_bytes(out.getvalue())
    found = file_in_place(str(tmp_path / "image"))
    assert (found.get("reason"), found.get("width"), found.get("height")) == (None, 400, 300)


@pytest.mark.parametrize("name", ["lost.png", "a\0b.png", "folder", "folder/"])
def test_a_name_without_a_file_is_reported_as_a_reason(tmp_path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    assert file_in_place(f"{tmp_path}/{name}")["reason"] == "no_file"
    assert image_named(name, str(tmp_path))["reason"] == "no_file"


def test_a_file_too_large_to_be_read_is_reported_as_a_reason(tmp_path) -> None:
    # the TIFF directory is beyond the first HEADER bytes
    (tmp_path / "a.tif").write_bytes(b"II*\0" + (2 * HEADER).to_bytes(4, "little"))
    os.truncate(tmp_path / "a.tif", LARGEST + 1)
    assert file_in_place(str(tmp_path / "a.tif")) == {"drop": "source", "reason": "too_large"}


@pytest.mark.parametrize(
    ("images", "record", "addresses", "used"),
    [
        ([{}], {"url": " HTTPS://a.org/1.png"}, ["HTTPS://a.org/1.png"], {"url"}),
        ([{}], {"url": "a.png", "image_url": "http://a.org/1"}, ["http://a.org/1"], {"image_url"}),
        ([{}, {}], {"urls": ["http://a.org/1", None]}, ["http://a.org/1", None], {"urls"}),
        ([{}, {}], {"url": "http://a.org/page"}, [None, None], set()),
        ([{"url": "http://a.org/1"}], {"url": "http://a.org/page"}, ["http://a.org/1"], set()),
        ([{}], {"url": 7}, [None], set()),
    ],
)
def test_images_get_the_addresses_that_a_record_holds(images, record, addresses, used) -> None:
    assert keep_addresses(images, record) == used
    assert [image.get("url") for image in images] == addresses


@pytest.mark.parametrize("where", ["data:image/png;base64,é", "data:,é", "data:image/png;base64,@@"])
def test_invalid_base64_is_reported_as_a_reason(tmp_path, where: str) -> None:
    assert image_named(where, str(tmp_path))["reason"] == "bad_base64"


def test_base64_is_read_in_every_published_form() -> None:
    body = picture(40, 30)
    plain, safe = base64.b64encode(body).decode(), base64.urlsafe_b64encode(body).decode().rstrip("=")
    wrapped = "\n".join(plain[start : start + 60] for start in range(0, len(plain), 60))
    forms = [f"data:image/png;base64,{one}" for one in (plain, safe, wrapped, f" {plain}\n")]
    forms += [plain, safe, wrapped, {"url": forms[2]}, f" DATA:;base64,{plain}"]
    assert [image_named(form, "/nowhere").get("data") for form in forms] == [body] * len(forms)


@pytest.mark.parametrize(("where", "reason"), [("data:image/png;base64,é", "bad_base64"), ("data:,A", "bad_base64")])
def test_a_data_url_without_base64_is_reported(where: str, reason: str) -> None:
    assert image_named(where, "/nowhere")["reason"] == reason


def test_a_short_name_that_could_be_base64_is_read_as_a_file_name(tmp_path) -> None:
    (tmp_path / "R0lGODlh").write_bytes(picture())
    assert image_named("R0lGODlh", str(tmp_path))["format"] == "png"
