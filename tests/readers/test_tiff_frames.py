"""The frames of a TIFF share a cost limit, and each becomes the PNG that Pillow writes."""

import io

import pytest
from PIL import Image, ImageSequence

from tests.images.pictures import photo, saved
from vlmdata.images.exif import frames_of
from vlmdata.readers.tiff_frames import Frames

LIMITS = {"max_memory_mb": 300, "max_cost": 1000}


def tiff(*sides: tuple[int, int], mode: str = "RGB", **settings: object) -> bytes:
    first, *rest = (Image.fromarray(photo(*size, seed)).convert(mode) for seed, size in enumerate(sides))
    return saved(first, "tiff", save_all=True, append_images=rest, **settings)


@pytest.mark.parametrize(("mode", "compression"), [("RGB", "tiff_lzw"), ("L", "jpeg"), ("1", "group4"), ("P", "raw")])
def test_every_frame_equals_the_png_that_pillow_writes(mode: str, compression: str) -> None:
    data = tiff((90, 60), (40, 70), (50, 50), mode=mode, compression=compression)
    expected = []
    with Image.open(io.BytesIO(data)) as image:
        for frame in ImageSequence.Iterator(image):
            out = io.BytesIO()
            frame.convert("RGB").save(out, "PNG")
            expected.append(out.getvalue())
    frames = Frames(data, **LIMITS)
    assert [frames.following()["data"] for _ in expected] == expected
    assert frames.following() == {"drop": "source", "reason": "no_image"}


def test_frames_are_read_until_their_total_cost_reaches_the_limit() -> None:
    frames = Frames(tiff(*[(600, 500)] * 4), max_memory_mb=300, max_cost=10)
    found = [frames.following() for _ in range(5)]
    assert [one.get("reason") for one in found] == [None, None, "too_costly", "too_costly", "no_image"]
    assert found[2]["threshold"] == 10 < found[2]["value"] < found[3]["value"]


def test_a_frame_too_large_is_reported_with_its_number_and_the_next_one_is_read() -> None:
    frames = Frames(tiff((3000, 2000), (50, 40)), max_memory_mb=60, max_cost=1000)
    first, second = frames.following(), frames.following()
    assert (first["reason"], first["threshold"]) == ("too_large", 60) and first["value"] > 60
    assert (second["width"], second["height"]) == (50, 40)


def test_reading_of_circular_directories_ends() -> None:
    data = bytearray(tiff((20, 20)))
    start = int.from_bytes(data[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(data[start : start + 2], "little")
    data[end : end + 4] = start.to_bytes(4, "little")
    assert len(list(frames_of(bytes(data)))) == 1


@pytest.mark.parametrize("data", [None, b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"no picture at all"])
def test_a_file_without_frames_gives_none(data: bytes | None) -> None:
    assert Frames(data, **LIMITS).following()["drop"] == "source"
