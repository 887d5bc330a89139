"""Limits on memory and cost apply before decoding, and errors state the numbers."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.bombs import kinds, run
from tests.images.pictures import exif, photo, saved
from vlmdata.images.budget import MAX_MEMORY_MB, decoding_bytes, decoding_cost
from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.images.header import ImageHeader, read_header
from vlmdata.images.process import process
from vlmdata.images.resize import ResizeRule

SMALL = ResizeRule("keep_ratio", 256)
MAKE = dict(kinds())
LARGEST_SIDES = {  # kind -> side of the largest square within the limits
    "PNG rgb alpha 8": 6250,
    "PNG grey 16": 7390,
    "WebP RGBA": 5500,
    "WebP animated": 3650,
    "AVIF RGBA": 3990,
    "GIF": 8270,
    "JPEG progressive 4:4:4": 6700,
    "JPEG progressive CMYK": 5750,
    "JPEG a scan a component": 6700,
    "TIFF one strip": 6250,
    "TIFF turned": 4950,
    "BMP packed": 8270,
}


def refusal(action: Callable[[], object]) -> tuple[str, float | None, float | None]:
    with pytest.raises(ImageError) as caught:
        action()
    return caught.value.reason, caught.value.value, caught.value.threshold


def test_forty_bytes_of_webp_are_too_large_before_they_are_decoded() -> None:
    bits = 16382 | 16382 << 14
    body = b"VP8L" + struct.pack("<I", 20) + b"\x2f" + struct.pack("<I", bits) + bytes(15)
    reason, value, threshold = refusal(lambda: process(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, SMALL))
    assert reason == "too_large" and value is not None and threshold is not None and value > threshold


@pytest.mark.parametrize("format", ["png", "webp", "avif", "gif", "tiff", "bmp", "jpeg"])
def test_the_limit_of_memory_is_exact_and_can_be_raised(format: str) -> None:
    data = saved(photo(300, 200), format)
    needed = decoding_bytes(read_header(data), len(data)) / 1e6
    assert decode(data, max_memory_mb=needed).pixels.shape == (200, 300, 3)
    assert refusal(lambda: decode(data, max_memory_mb=needed - 1)) == ("too_large", round(needed, 1), needed - 1)


def test_the_limit_of_cost_is_exact() -> None:
    data = saved(photo(300, 200), "webp")
    cost = decoding_cost(read_header(data))
    assert process(data, SMALL, max_cost=cost).width == 384
    assert refusal(lambda: process(data, SMALL, max_cost=cost / 2)) == ("too_costly", round(cost, 2), cost / 2)


@pytest.mark.parametrize(
    ("header", "size", "factor"),
    [
        (ImageHeader("jpeg", 12_000, 8_000, mode="ycc"), 40_000_000, 8),
        (ImageHeader("jpeg", 8_000, 6_000, mode="ycc", orientation=6), 20_000_000, 4),
        (ImageHeader("jpeg", 8_000, 6_000, mode="ycc", held_bytes=144_000_000, passes=10), 20_000_000, 8),
        (ImageHeader("png", 6_500, 4_600, held_bytes=63_000), 40_000_000, 1),
        (ImageHeader("webp", 6_000, 4_000), 5_000_000, 1),
        (ImageHeader("avif", 6_000, 4_000, held_bytes=72_000_000), 5_000_000, 1),
        (ImageHeader("tiff", 5_000, 7_000, mode="rgb"), 500_000, 1),
        (ImageHeader("gif", 5_000, 5_000, mode="palette"), 500_000, 1),
    ],
)
def test_large_photos_and_scans_are_within_the_default_limits(header: ImageHeader, size: int, factor: int) -> None:
    assert decoding_bytes(header, size, factor) < MAX_MEMORY_MB * 1e6 and decoding_cost(header) < 1_000


def test_several_scans_keep_all_coefficients_in_memory() -> None:
    one_scan, three_scans = (read_header(MAKE[name](64)) for name in ("JPEG RGB", "JPEG a scan a component"))
    assert (one_scan.held_bytes, one_scan.passes) == (0, 1)
    assert (three_scans.held_bytes, three_scans.passes) == (2 * 3 * 64 * 64, 3)
    assert read_header(saved(photo(64, 64), "jpeg", progressive=True)).held_bytes == 2 * 64 * 64 * 3 // 2
    assert decode(MAKE["JPEG a scan a component"](64)).pixels.shape == (64, 64, 3)


def test_the_limits_apply_to_blurring_and_encoding() -> None:
    data = saved(photo(2000, 1500), "jpeg")
    assert refusal(lambda: process(data, ResizeRule("no", format="webp"), max_memory_mb=100))[0] == "too_large"
    assert refusal(lambda: process(data, ResizeRule("no"), blur=[(0, 0, 1, 1)]))[0] == "too_costly"
    line = saved(np.zeros((1, 60_000, 3), np.uint8), "png")
    assert refusal(lambda: process(line, ResizeRule("keep_ratio", 64), max_pixels=10**9))[0] in ("too_large", "too_many_pixels")


def test_tiles_give_the_same_pixels_as_whole_images(monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = Image.fromarray(photo(90, 70))
    alpha.putalpha(Image.fromarray(photo(90, 70, 1)[:, :, 0]))
    files = [saved(alpha, format) for format in ("png", "webp", "tiff")] + [saved(alpha.convert("P"), "png", exif=exif(6))]
    whole = [decode(data).pixels for data in files]
    monkeypatch.setattr("vlmdata.images.tiles.TILE_PIXELS", 64)
    assert all(np.array_equal(decode(data).pixels, pixels) for data, pixels in zip(files, whole, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGEST_SIDES)
def test_the_largest_bomb_within_the_limits_takes_less_than_300_mb(kind: str, tmp_path: Path) -> None:
    found = run(MAKE[kind](LARGEST_SIDES[kind]), tmp_path)
    assert found["outcome"] == "taken" and found["mb"] < 300, found
    assert run(MAKE[kind](LARGEST_SIDES[kind] * 5 // 4), tmp_path)["outcome"] in ("too_large", "too_costly")


def test_a_refusal_takes_no_time_or_memory(tmp_path: Path) -> None:
    found = run(MAKE["PNG rgb alpha 8"](9_000), tmp_path)
    assert found["outcome"] == "too_large" and found["mb"] < 5 and found["cpu_s"] < 1
