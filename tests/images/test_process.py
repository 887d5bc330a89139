"""One image is processed and encoded according to a resize rule."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from tests.images.pictures import P3, exif, matrix_profile, photo, saved
from vlmdata.images.decode import decode
from vlmdata.images.encode import encode
from vlmdata.images.header import ImageError
from vlmdata.images.phash import phash
from vlmdata.images.process import process
from vlmdata.images.resize import MODES, ResizeRule, resize

CAP = 10_000_000
KEEP = ResizeRule("keep_ratio", 200, only_if_bigger=True, skip_reencode=True)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b) ** 2)))


def test_the_facts_of_a_photo_are_right() -> None:
    data = saved(photo(600, 300), "jpeg", quality=92)
    done = process(data, ResizeRule("center_crop", 100), max_pixels=CAP, boxes=[(0, 0, 20, 20), (150, 0, 450, 300)])
    assert (done.width, done.height, done.original_width, done.original_height) == (100, 100, 600, 300)
    assert (done.format, done.source_format, done.decoder, done.is_original) == ("jpeg", "jpeg", "simplejpeg", False)
    assert done.sha256 == hashlib.sha256(data).hexdigest()
    assert done.phash == phash(done.pixels)
    assert done.boxes == [None, (0.0, 0.0, 100.0, 100.0)]
    assert Image.open(io.BytesIO(done.data)).size == (100, 100)


@pytest.mark.parametrize("mode", ["keep_ratio", "keep_ratio_largest", "center_crop", "border", "no"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_shrinking_while_decoding_changes_little(mode: str, orientation: int) -> None:
    data = saved(photo(1500, 1000), "jpeg", exif=exif(orientation))
    rule = ResizeRule(mode, 150)  # type: ignore[arg-type]
    done = process(data, rule, max_pixels=CAP)
    expected = resize(decode(data, max_pixels=CAP).pixels, rule)
    assert done.pixels.shape == expected.shape
    assert psnr(done.pixels, expected) > 38


@pytest.mark.parametrize(
    ("width", "settings", "is_kept"),
    [
        (200, {}, True),
        (199, {}, True),
        (201, {}, False),
        (200, {"exif": exif(6)}, False),
        (200, {"exif": exif(1)}, True),
        (200, {"icc_profile": matrix_profile(P3, 2.2)}, False),
        (200, {"progressive": True}, True),
    ],
)
def test_bytes_are_kept_only_if_nothing_changes(width: int, settings: dict, is_kept: bool) -> None:
    data = saved(photo(width, 300), "jpeg", **settings)
    done = process(data, KEEP, max_pixels=CAP)
    assert done.is_original == is_kept
    assert (done.data == data) == is_kept


@pytest.mark.parametrize("format", ["png", "webp", "gif", "bmp"])
def test_another_format_is_encoded(format: str) -> None:
    done = process(saved(photo(150, 100), format), KEEP, max_pixels=CAP)
    assert not done.is_original and done.data[:3] == b"\xff\xd8\xff" and done.source_format == format


def test_a_png_with_alpha_is_not_kept_and_one_without_is() -> None:
    rule = ResizeRule("no", skip_reencode=True, format="png")
    alpha = np.full((40, 60, 1), 128, np.uint8)
    assert process(saved(photo(60, 40), "png"), rule, max_pixels=CAP).is_original
    see_through = saved(np.concatenate([photo(60, 40), alpha], axis=2), "png")
    assert not process(see_through, rule, max_pixels=CAP).is_original


def test_every_image_is_encoded_without_skip_reencode() -> None:
    assert not process(saved(photo(150, 100), "jpeg"), ResizeRule("no"), max_pixels=CAP).is_original


def test_faces_are_blurred_before_the_crop_and_never_kept() -> None:
    data = saved(photo(180, 180), "jpeg")
    done = process(data, KEEP, max_pixels=CAP, blur=[(0.22, 0.22, 0.55, 0.55)])
    plain = process(data, KEEP, max_pixels=CAP)
    assert not done.is_original
    differs = np.abs(done.pixels.astype(int) - plain.pixels).max(axis=2) > 0
    assert differs[50:90, 50:90].mean() > 0.9
    assert not differs[160:].any()


def test_damage_and_limits_raise_one_error() -> None:
    data = saved(photo(150, 100), "jpeg")
    for harmed, cap, reason in (
        (data[:900], CAP, "truncated"),
        (b"<html>", CAP, "not_an_image"),
        (data, 100, "too_many_pixels"),
    ):
        with pytest.raises(ImageError) as caught:
            process(harmed, KEEP, max_pixels=cap)
        assert caught.value.reason == reason


@pytest.mark.parametrize(("format", "quality", "at_least"), [("jpeg", 95, 30), ("webp", 90, 29), ("png", 95, 89)])
def test_encoded_images_decode_to_similar_pixels(format: str, quality: int, at_least: float) -> None:
    pixels = photo(120, 90)
    assert psnr(decode(encode(pixels, format, quality), max_pixels=CAP).pixels, pixels) > at_least


def test_the_jpeg_equals_that_of_pillow() -> None:
    pixels = photo(120, 90)
    theirs = Image.open(io.BytesIO(saved(pixels, "jpeg", quality=95)))
    ours = Image.open(io.BytesIO(encode(pixels, "jpeg", 95)))
    assert theirs.quantization == ours.quantization  # type: ignore[attr-defined]
    assert np.array_equal(np.asarray(theirs), np.asarray(ours))


def test_an_unknown_format_raises() -> None:
    with pytest.raises(ValueError, match="must be jpeg, png or webp"):
        encode(photo(8, 8), "avif")


def test_the_limit_on_pixels_applies_to_the_output() -> None:
    line = saved(np.zeros((1, 3000, 3), np.uint8), "png")
    for rule in (ResizeRule("keep_ratio", 256), ResizeRule("center_crop", 256)):
        with pytest.raises(ImageError) as caught:
            process(line, rule, max_pixels=CAP)
        assert caught.value.reason == "too_many_pixels"
    assert process(line, ResizeRule("border", 256), max_pixels=CAP).width == 256


def test_a_side_too_long_for_the_format_is_an_outcome() -> None:
    wide = saved(np.zeros((2, 16384, 3), np.uint8), "png")
    with pytest.raises(ImageError, match="16384 x 2"):
        process(wide, ResizeRule("no", format="webp"), max_pixels=CAP)
    assert process(wide, ResizeRule("no"), max_pixels=CAP).width == 16384


def test_the_first_of_several_views_is_decoded() -> None:
    first, second = Image.fromarray(photo(60, 40)), Image.fromarray(photo(60, 40, 1))
    done = process(saved(first, "MPO", save_all=True, append_images=[second]), ResizeRule("no"), max_pixels=CAP)
    assert psnr(done.pixels, photo(60, 40)) > 25 and done.source_format == "jpeg"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"])
def test_a_box_in_the_upright_original_frames_the_same_area_after_the_resize(mode: str, orientation: int) -> None:
    """The box is red. Its left part is outside of the central square, and so is all of the blue box."""
    upright = np.full((240, 360, 3), 255, np.uint8)
    upright[60:150, 40:100], upright[60:150, 8:32] = (255, 0, 0), (0, 0, 255)
    data = saved(as_stored(upright, orientation), "png", exif=exif(orientation))
    done = process(data, ResizeRule(mode, 96, format="png"), boxes=[(40, 60, 100, 150), (8, 60, 32, 150)])  # type: ignore[arg-type]
    assert (done.original_width, done.original_height) == (360, 240)
    pixels = decode(done.data).pixels
    assert pixels.shape == (done.height, done.width, 3)
    red, blue = done.boxes
    assert red is not None and framed(pixels, 0) == pytest.approx(red, abs=1)
    assert (blue is None) == (mode == "center_crop") and (blue is None or framed(pixels, 2) == pytest.approx(blue, abs=1))


def as_stored(upright: np.ndarray, orientation: int) -> Image.Image:
    """Return the picture that a file with this EXIF orientation holds, so that it is shown like `upright`."""
    turns = Image.Transpose
    back = {2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE}
    back |= {6: turns.ROTATE_90, 7: turns.TRANSVERSE, 8: turns.ROTATE_270}
    picture = Image.fromarray(upright)
    return picture.transpose(back[orientation]) if orientation in back else picture


def framed(pixels: np.ndarray, channel: int) -> tuple[int, int, int, int]:
    """Return the box of the pixels in which only one channel is bright."""
    others = [number for number in range(3) if number != channel]
    y, x = np.nonzero((pixels[:, :, channel] > 128) & (pixels[:, :, others].max(axis=2) < 128))
    return x.min(), y.min(), x.max() + 1, y.max() + 1


def test_a_box_that_an_earlier_crop_removed_stays_none() -> None:
    assert process(saved(photo(60, 40), "png"), ResizeRule("no"), boxes=[None, (0, 0, 60, 40)]).boxes == [None, (0, 0, 60, 40)]


def test_parts_of_a_box_outside_of_the_image_are_cut_and_a_box_without_area_becomes_none() -> None:
    boxes = [(-5.0, -1.0, 700.0, 41.0), (10.0, 10.0, 10.0, 20.0), (30.0, 10.0, 20.0, 20.0)]
    done = process(saved(photo(60, 40), "png"), ResizeRule("no"), boxes=boxes)
    assert done.boxes == [(0, 0, 60, 40), None, (30.0, 10.0, 20.0, 20.0)]  # the last one's place is not known
    assert done.original_boxes == [(0, 0, 1, 1), None, None]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", MODES)
def test_fractions_of_boxes_and_the_view_are_those_of_the_upright_picture(mode: str, orientation: int) -> None:
    data = saved(photo(60, 40), "png", exif=exif(orientation))
    width, height = (40, 60) if orientation >= 5 else (60, 40)
    done = process(data, ResizeRule(mode, 20), boxes=[(0.0, 0.0, width / 2, height / 4)])  # type: ignore[arg-type]
    assert done.original_boxes == [(0.0, 0.0, 0.5, 0.25)]
    part = {"center_crop": 2 / 3, "border": 1.5}.get(mode)
    low, high = (0.0, 1.0) if part is None else (0.5 - part / 2, 0.5 + part / 2)
    is_wide = (width > height) == (mode == "center_crop")
    expected = None if part is None else (low, 0.0, high, 1.0) if is_wide else (0.0, low, 1.0, high)
    assert done.view == (expected and pytest.approx(expected, abs=0.06))  # the sizes are whole numbers
    x0, y0, x1, y1 = done.view or (0.0, 0.0, 1.0, 1.0)
    left, top, right, bottom = -x0 / (x1 - x0), -y0 / (y1 - y0), (0.5 - x0) / (x1 - x0), (0.25 - y0) / (y1 - y0)
    cut = (max(left, 0), max(top, 0), right, bottom)
    assert done.boxes == [
        pytest.approx([edge * side for edge, side in zip(cut, (done.width, done.height) * 2, strict=True)], abs=1e-6)
    ]
