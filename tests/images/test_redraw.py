"""A changed image: its format, size and hash, what is left alone, and what is refused before it is decoded."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.images.pictures import photo, saved
from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.images.phash import phash
from vlmdata.images.redraw import redraw


def black_corner(pixels: np.ndarray) -> bool:
    pixels[:20, :20] = 0
    return True


@pytest.mark.parametrize(
    ("format", "stays"), [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp"), ("BMP", "jpeg"), ("GIF", "jpeg")]
)
def test_the_format_stays_if_it_is_one_of_training_formats(format: str, stays: str) -> None:
    done = redraw(saved(photo(80, 60), format), 95, black_corner)
    assert done is not None and (done.format, done.width, done.height) == (stays, 80, 60)
    pixels = decode(done.data).pixels
    assert pixels[5:15, 5:15].max() < 20 and (done.phash ^ phash(pixels)).bit_count() <= 2


def test_an_unchanged_image_is_not_encoded() -> None:
    assert redraw(saved(photo(80, 60), "JPEG"), 95, lambda pixels: False) is None


def test_a_rotated_photo_is_changed_and_stored_upright() -> None:
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(photo(80, 60)).save(out, "JPEG", exif=exif)
    done = redraw(out.getvalue(), 95, black_corner)
    assert done is not None and (done.width, done.height) == (60, 80) == decode(done.data).pixels.shape[1::-1]


def test_an_image_beyond_the_limits_is_refused() -> None:
    for body, reason in ((b"", "empty"), (saved(Image.new("1", (20_000, 20_000)), "PNG"), "too_large")):
        with pytest.raises(ImageError) as raised:
            redraw(body, 95, black_corner)
        assert raised.value.reason == reason
    with pytest.raises(ImageError, match="65500 pixels, the most of jpeg"):
        redraw(saved(Image.new("1", (65_501, 1)), "BMP"), 95, black_corner)
