"""The facts of an image are read before decoding, or the image is refused with a reason."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.images.pictures import P3, exif, matrix_profile, photo, saved
from vlmdata.images.decode import decode
from vlmdata.images.facts import REASONS
from vlmdata.images.header import ImageError, ImageHeader, read_header


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read_header(data)
    assert caught.value.reason in REASONS
    return caught.value.reason


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "gif", "avif", "tiff", "bmp"])
def test_the_size_is_read_from_every_format(format: str) -> None:
    header = read_header(saved(photo(70, 43), format))
    assert (header.format, header.width, header.height, header.orientation, header.is_animated) == (
        format,
        70,
        43,
        1,
        False,
    )


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_from_every_format_that_has_it(format: str, orientation: int) -> None:
    header = read_header(saved(photo(70, 43), format, exif=exif(orientation)))
    assert (header.width, header.height, header.orientation) == (70, 43, orientation)
    assert header.upright_size == ((43, 70) if orientation >= 5 else (70, 43))


@pytest.mark.parametrize("wrong", [0, 9, 300])
def test_an_invalid_orientation_counts_as_upright(wrong: int) -> None:
    assert read_header(saved(photo(70, 43), "jpeg", exif=exif(wrong))).orientation == 1


@pytest.mark.parametrize("format", ["png", "webp", "gif", "avif", "tiff"])
def test_animation_is_recognised(format: str) -> None:
    frames = [Image.fromarray(photo(40, 30, seed)) for seed in range(3)]
    assert read_header(saved(frames[0], format, save_all=True, append_images=frames[1:])).is_animated


@pytest.mark.parametrize(
    ("mode", "format", "expected"),
    [
        ("L", "jpeg", "grey"),
        ("RGB", "jpeg", "ycc"),
        ("CMYK", "jpeg", "cmyk"),
        ("P", "png", "palette"),
        ("LA", "png", "grey_alpha"),
        ("RGBA", "png", "rgb_alpha"),
        ("RGBA", "webp", "rgb_alpha"),
        ("CMYK", "tiff", "cmyk"),
    ],
)
def test_the_mode_is_read(mode: str, format: str, expected: str) -> None:
    image = Image.fromarray(photo(20, 10)).convert(mode)
    if mode == "RGBA":
        image.putalpha(100)
    assert read_header(saved(image, format)).mode == expected


def test_a_profile_of_several_pieces_is_joined() -> None:
    long = matrix_profile(P3, 2.2).ljust(150_000, b"\0")
    assert read_header(saved(photo(20, 10), "jpeg", icc_profile=long)).icc == long


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>gone</html>", "not_an_image"),
        (b'<?xml version="1.0"?><svg width="1" height="1"/>', "not_an_image"),
        (b'{"error": 404}', "not_an_image"),
        (b"\0" * 64, "not_an_image"),
        (b"\xff", "not_an_image"),
        (b"\0\0\1\0\1\0\x10\x10", "unsupported_format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported_format"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "unsupported_format"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "not_an_image"),
        (b"II+\0\x08\0\0\0", "unsupported_format"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\xff\xd8\xff\xd9", "truncated"),
        (b"\xff\xd8\xff\xe0\xff\xff", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"GIF89a", "truncated"),
        (b"GIF89a\x01\0\x01\0\0\0\0;", "truncated"),
        (b"RIFF\x04\0\0\0WEBP", "corrupt"),
        (b"RIFF\xff\0\0\0WEBPVP8 ", "truncated"),
        (b"II*\0\x08\0\0\0", "truncated"),
        (b"BM\0\0\0\0\0\0\0\0", "truncated"),
    ],
)
def test_refused_bytes_have_a_reason(data: bytes, reason: str) -> None:
    assert reason_of(data) == reason


def jpeg_with_size(width: int, height: int) -> bytes:
    data = bytearray(saved(photo(64, 64), "jpeg"))
    at = data.find(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def test_a_jpeg_with_a_false_size_is_truncated_before_memory_is_allocated() -> None:
    assert reason_of(jpeg_with_size(65000, 65000)) == "truncated"
    assert reason_of(jpeg_with_size(0, 64)) == "corrupt"


def png_with_size(width: int, height: int) -> bytes:
    data = saved(photo(8, 8), "png")
    ihdr = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + data[33:]


def test_a_png_with_a_false_size_is_truncated_before_memory_is_allocated() -> None:
    assert reason_of(png_with_size(60000, 60000)) == "truncated"


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    data = saved(photo(64, 64), "jpeg", progressive=True)
    scan = data.rfind(b"\xff\xda")
    assert reason_of(data[:-2] + data[scan:-2] * 1000 + data[-2:]) == "too_many_scans"


def test_a_jpeg_of_endless_empty_segments_is_refused() -> None:
    data = saved(photo(64, 64), "jpeg")
    assert reason_of(data[:2] + b"\xff\xe5\0\2" * 5000 + data[2:]) == "corrupt"


def test_a_tiff_with_more_bytes_of_tags_than_the_file_is_refused() -> None:
    tags = b"".join(struct.pack("<HHII", 40000 + n, 1, 50_000, 8) for n in range(100))
    assert reason_of(b"II*\0\x08\0\0\0" + struct.pack("<H", 100) + tags + bytes(60_000)) == "corrupt"


def test_twelve_bit_jpegs_are_unsupported() -> None:
    data = saved(photo(64, 64), "jpeg")
    at = data.find(b"\xff\xc0")
    assert reason_of(data[: at + 4] + b"\x0c" + data[at + 5 :]) == "unsupported_format"


def test_a_gif_frame_larger_than_its_screen_counts() -> None:
    data = bytearray(saved(Image.fromarray(photo(50, 40)).convert("P"), "gif"))
    data[6:10] = struct.pack("<HH", 5, 4)
    assert read_header(bytes(data)).upright_size == (50, 40)


def test_the_av1_data_decide_the_size_of_an_avif() -> None:
    data = bytearray(saved(np.zeros((600, 800, 3), np.uint8), "avif"))
    at = data.find(b"ispe")
    data[at + 8 : at + 16] = struct.pack(">II", 10, 10)
    header = read_header(bytes(data))
    assert (header.width, header.height, header.coded_pixels) == (10, 10, 480_000)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_an_avif_that_ends_early_is_truncated_and_not_corrupt(share: float) -> None:
    data = saved(photo(200, 150), "avif")
    with pytest.raises(ImageError) as found:
        decode(data[: int(share * len(data))], max_pixels=10**6)
    assert found.value.reason == "truncated"


def test_headers_are_plain_values() -> None:
    assert read_header(saved(photo(9, 7), "bmp")) == ImageHeader("bmp", 9, 7)
