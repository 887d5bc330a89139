"""Images of every mode, orientation and profile are decoded to upright sRGB pixels, and damage is reported."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.images.pictures import ADOBE_RGB, P3, SRGB, exif, matrix_profile, photo, pillow_rgb, saved, through_matrix
from tests.images.test_header import jpeg_with_size
from vlmdata.images.decode import decode, shrink_factor
from vlmdata.images.header import ImageError, ImageHeader, read_header

pytestmark = pytest.mark.whole

CAP = 10_000_000


def pixels_of(data: bytes) -> np.ndarray:
    pixels = decode(data, max_pixels=CAP).pixels
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.shape[2] == 3
    return pixels


def reason_of(data: bytes, max_pixels: int = CAP) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels=max_pixels)
    return caught.value.reason


def furthest(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(np.int16) - b.astype(np.int16)).max())


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "gif", "avif", "tiff", "bmp"])
def test_pixels_equal_pillows(format: str) -> None:
    data = saved(photo(90, 61), format)
    assert furthest(pixels_of(data), pillow_rgb(data)) <= (2 if format == "jpeg" else 0)


@pytest.mark.parametrize("settings", [{"progressive": True}, {"subsampling": 0}, {"quality": 5}, {"restart_marker_rows": 1}])
def test_every_kind_of_jpeg_is_decoded(settings: dict) -> None:
    data = saved(photo(90, 61), "jpeg", **settings)
    assert furthest(pixels_of(data), pillow_rgb(data)) <= 2
    assert decode(data, max_pixels=CAP).decoder == "simplejpeg"


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(format: str, orientation: int) -> None:
    stored = photo(96, 64)
    data = saved(stored, format, exif=exif(orientation))
    decoded = decode(data, max_pixels=CAP)
    assert furthest(decoded.pixels, pillow_rgb(data)) <= 2
    assert (decoded.original_width, decoded.original_height) == decoded.pixels.shape[1::-1]
    assert decoded.is_plain == (orientation == 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_of_png_is_blended_with_white(mode: str) -> None:
    alpha = np.linspace(0, 255, 60 * 40).reshape(40, 60, 1).astype(np.uint8)
    image = Image.fromarray(np.concatenate([photo(60, 40), alpha], axis=2)).convert(mode)
    data = saved(image, "png")
    assert furthest(pixels_of(data), pillow_rgb(data)) <= 1


def test_alpha_is_blended_with_white_and_rounded() -> None:
    data = saved(np.array([[[0, 100, 200, 0], [0, 100, 200, 128], [0, 100, 200, 255]]], np.uint8), "png")
    assert pixels_of(data).tolist() == [[[255, 255, 255], [127, 177, 227], [0, 100, 200]]]


def png16(rows: np.ndarray, *, key: bytes = b"") -> bytes:
    """Return a 16-bit PNG of (H, W) grey or (H, W, 3) colours with the transparent colour `key`."""
    height, width = rows.shape[:2]

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 16, 2 if rows.ndim == 3 else 0, 0, 0, 0)
    transparent = chunk(b"tRNS", key) if key else b""
    body = chunk(b"IHDR", head) + transparent + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    levels = np.array([[0, 128, 257, 1000, 32768, 65407, 65535]], np.uint16)
    assert pixels_of(png16(levels))[0, :, 0].tolist() == [0, 0, 1, 4, 128, 255, 255]
    colours = np.array([[[65535, 32768, 256]]], np.uint16)
    assert pixels_of(png16(colours)).tolist() == [[[255, 128, 1]]]


def test_the_transparent_colour_of_sixteen_bits_becomes_white() -> None:
    greys = np.array([[300, 5000]], np.uint16)
    assert pixels_of(png16(greys, key=struct.pack(">H", 5000)))[0, :, 0].tolist() == [1, 255]
    colours = np.array([[[256, 512, 1024], [0, 0, 0]]], np.uint16)
    assert pixels_of(png16(colours, key=struct.pack(">3H", 256, 512, 1024))).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("format", ["gif", "webp", "png", "avif"])
def test_the_first_frame_of_an_animation_is_decoded(format: str) -> None:
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "green", "blue")]
    decoded = decode(saved(frames[0], format, save_all=True, append_images=frames[1:]), max_pixels=CAP)
    assert furthest(decoded.pixels, np.asarray(frames[0])) <= 4
    assert decoded.header.is_animated and not decoded.is_plain


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize(("columns", "gamma"), [(P3, 2.2), (ADOBE_RGB, 563 / 256)])
def test_wide_colours_are_converted_to_srgb(format: str, columns: tuple, gamma: float) -> None:
    flat = np.repeat(np.array([[[200, 100, 50], [40, 120, 90], [128, 128, 128]]], np.uint8), 32, axis=0).repeat(32, axis=1)
    settings = {"quality": 100, "subsampling": 0} if format == "jpeg" else {"lossless": True} if format == "webp" else {}
    data = saved(flat, format, icc_profile=matrix_profile(columns, gamma), **settings)
    expected = through_matrix(flat, columns, round(gamma * 256) / 256)
    inside = (slice(8, 24), [8, 16, 24, 40, 48, 56, 72, 80, 88])
    assert np.abs(pixels_of(data)[inside] - expected[inside]).max() <= 2.5
    assert np.abs(flat[inside] - expected[inside]).max() > 15
    assert not decode(data, max_pixels=CAP).is_plain


def test_a_profile_equal_to_srgb_changes_nothing() -> None:
    from PIL import ImageCms

    theirs = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, tagged = saved(photo(60, 40), "jpeg"), saved(photo(60, 40), "jpeg", icc_profile=theirs)
    assert np.array_equal(pixels_of(plain), pixels_of(tagged))
    assert decode(tagged, max_pixels=CAP).is_plain


def test_a_damaged_profile_is_ignored() -> None:
    for profile in (b"nonsense", matrix_profile(P3, 2.2)[:150], matrix_profile(SRGB, 2.2)[:16] + b"CMYK" + bytes(200)):
        data = saved(photo(60, 40), "jpeg", icc_profile=profile)
        assert furthest(pixels_of(data), pillow_rgb(data)) <= 2


def test_a_grey_jpeg_with_an_rgb_profile_is_read() -> None:
    grey = Image.fromarray(photo(60, 40)).convert("L")
    data = saved(grey, "jpeg", quality=100, icc_profile=matrix_profile(ADOBE_RGB, 1.0))
    expected = through_matrix(np.asarray(grey.convert("RGB")), ADOBE_RGB, 1.0)
    assert np.abs(pixels_of(data) - expected).mean() < 2


@pytest.mark.parametrize("target", [None, (30, 20)])
def test_cmyk_equals_pillows(target: tuple[int, int] | None) -> None:
    data = saved(Image.fromarray(photo(240, 160)).convert("CMYK"), "jpeg", quality=95)
    decoded = decode(data, max_pixels=CAP, target=target)
    whole = pillow_rgb(data)
    if target:
        assert decoded.pixels.shape == (40, 60, 3)
        whole = np.asarray(Image.fromarray(whole).resize((60, 40), Image.Resampling.BOX))
    assert np.abs(decoded.pixels.astype(int) - whole).mean() < 3
    assert decoded.decoder == "pillow" and decoded.original_width == 240


def test_an_adobe_jpeg_of_plain_rgb_keeps_its_colours() -> None:
    data = saved(photo(60, 40), "jpeg", keep_rgb=True, quality=95)
    assert read_header(data).mode == "rgb"
    assert furthest(pixels_of(data), pillow_rgb(data)) <= 1


def test_shrinking_keeps_half_or_a_quarter_more_than_the_target() -> None:
    header = ImageHeader("jpeg", 1280, 1200)
    assert [shrink_factor(header, (side, side)) for side in (100, 101, 200, 201, 480, 481)] == [8, 4, 4, 2, 2, 1]
    assert shrink_factor(header, None) == 1


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_image_shrunk_while_decoding_looks_the_same(orientation: int) -> None:
    data = saved(photo(1601, 1203), "jpeg", exif=exif(orientation))
    target = (200, 150) if orientation == 1 else (150, 200)
    decoded = decode(data, max_pixels=CAP, target=target)
    size = (401, 301) if orientation == 1 else (301, 401)
    assert decoded.pixels.shape[1::-1] == size
    assert (decoded.original_width, decoded.original_height) == ((1601, 1203) if orientation == 1 else (1203, 1601))
    whole = np.asarray(Image.fromarray(decode(data, max_pixels=CAP).pixels).resize(size, Image.Resampling.BOX))
    assert np.abs(decoded.pixels.astype(int) - whole).mean() < 2


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif", "gif", "tiff", "bmp"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_data_raise_an_error(format: str, share: float) -> None:
    data = saved(photo(200, 150), format)
    assert reason_of(data[: int(len(data) * share)]) in ("truncated", "corrupt")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("settings", [{"progressive": True}, {"quality": 50}])
def test_a_truncated_jpeg_is_reported_as_truncated(share: float, settings: dict) -> None:
    data = saved(photo(200, 150), "jpeg", **settings)
    assert reason_of(data[: int(len(data) * share)]) == "truncated"
    assert reason_of(data[: int(len(data) * share)] + b"\xff\xd9") in ("truncated", "corrupt")


@pytest.mark.parametrize(
    ("harm", "decoder"),
    [
        (lambda data: data[:-2], "simplejpeg_lenient"),
        (lambda data: data[:-2] + b"\0" * 40 + b"\xff\xd9", "simplejpeg_lenient"),
        (lambda data: data[:-2] + b"\x5a\x5b\x5c\xff\xd9", "simplejpeg"),
        (lambda data: data[:20] + b"stray" + data[20:], "pillow"),
        (lambda data: data + b"an appended film" * 100, "simplejpeg"),
    ],
    ids=["no_end", "padding", "three_bytes", "between_segments", "after_the_end"],
)
def test_harmless_damage_changes_no_pixel(harm: object, decoder: str) -> None:
    data = saved(photo(200, 150), "jpeg")
    decoded = decode(harm(data), max_pixels=CAP)  # type: ignore[operator]
    assert np.array_equal(decoded.pixels, pixels_of(data))
    assert decoded.decoder.startswith(decoder)


def test_lost_scan_data_are_corrupt() -> None:
    data = saved(photo(200, 150), "jpeg")
    middle = len(data) * 2 // 3
    assert reason_of(data[:middle] + data[middle + 400 :]) == "corrupt"
    assert reason_of(data[:middle] + bytes(range(1, 200)) + data[middle:]) == "corrupt"


def test_pillow_decodes_rare_sampling() -> None:
    data = bytearray(saved(photo(96, 64), "jpeg", subsampling=0))
    at = data.find(b"\xff\xc0")
    data[at + 14], data[at + 17] = 0x12, 0x21  # a different sampling of each chroma plane
    decoded = decode(bytes(data), max_pixels=CAP)
    assert (decoded.decoder, decoded.pixels.shape) == ("pillow", (64, 96, 3))


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "gif", "avif", "tiff", "bmp"])
def test_the_limit_on_pixels_is_exact(format: str) -> None:
    data = saved(photo(100, 50), format)
    assert decode(data, max_pixels=5000).pixels.shape == (50, 100, 3)
    assert reason_of(data, max_pixels=4999) == "too_many_pixels"


@pytest.mark.parametrize("format", ["png", "webp", "gif", "tiff", "avif"])
def test_a_bomb_takes_no_memory(format: str) -> None:
    import resource

    settings: dict[str, dict] = {
        "tiff": {"compression": "tiff_adobe_deflate"},
        "webp": {"method": 0},
        "avif": {"speed": 10},
    }
    data = saved(Image.new("L", (8000, 8000)), format, **settings.get(format, {}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason_of(data, max_pixels=1_000_000) == "too_many_pixels"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


def test_an_avif_bomb_behind_a_small_container_is_refused() -> None:
    data = bytearray(saved(np.zeros((2000, 2000, 3), np.uint8), "avif", speed=10))
    at = data.find(b"ispe")
    data[at + 8 : at + 16] = struct.pack(">II", 10, 10)
    assert reason_of(bytes(data), max_pixels=1_000_000) == "too_many_pixels"


def test_a_jpeg_with_a_false_size_is_refused_by_its_pixels_or_bytes() -> None:
    assert reason_of(jpeg_with_size(60000, 60000) + bytes(10_000_000), max_pixels=100_000_000) == "too_many_pixels"


def test_a_bomb_in_a_comment_or_profile_is_refused_or_ignored() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    data, bomb = saved(photo(20, 10), "png"), zlib.compress(bytes(300_000_000), 9)
    for kind in (b"zTXt", b"iCCP"):
        try:
            assert decode(data[:33] + chunk(kind, b"a\0\0" + bomb) + data[33:], max_pixels=CAP).pixels.shape == (
                10,
                20,
                3,
            )
        except ImageError as error:
            assert error.reason == "corrupt"


def test_float_pixels_are_unsupported() -> None:
    assert reason_of(saved(Image.fromarray(np.ones((8, 8), np.float32)), "tiff")) == "unsupported_format"


def test_nothing_is_written_to_the_terminal(capfd: pytest.CaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in (saved(photo(200, 150), "jpeg")[:2000], saved(photo(200, 150), "png")[:2000], b"II*\0" + bytes(90)):
            reason_of(data)
    assert capfd.readouterr() == ("", "")
