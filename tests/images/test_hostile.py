"""Odd files and thousands of damaged ones give Pillow's pixels or exactly one reason."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.engine.site import download, manifest
from tests.fixtures import Find, fixture
from tests.images.pictures import P3, exif, matrix_profile, photo, pillow_rgb, saved
from tests.real_data import real_data
from tests.servers import LoopbackServer, reply
from vlmdata.build import run
from vlmdata.images.decode import decode
from vlmdata.images.facts import REASONS
from vlmdata.images.header import ImageError
from vlmdata.images.process import process
from vlmdata.images.resize import ResizeRule
from vlmdata.recipe import parse

pytestmark = pytest.mark.whole

CAP = 10_000_000
REFUSED = {
    "xc1n0g08.png": "corrupt",  # colour type 1
    "xc9n2c08.png": "corrupt",
    "xcrn0g04.png": "not_an_image",  # converted line ends
    "xlfn0g04.png": "not_an_image",
    "xd0n2c08.png": "corrupt",  # bit depth 0
    "xd3n2c08.png": "corrupt",
    "xd9n2c08.png": "corrupt",
    "xdtn0g01.png": "truncated",  # no pixels at all
    "xhdn0g08.png": "corrupt",  # a wrong checksum
    "xs1n0g01.png": "not_an_image",  # a damaged signature
    "xs2n0g01.png": "not_an_image",
    "xs4n0g01.png": "not_an_image",
    "xs7n0g01.png": "not_an_image",
    "nonsense.bin": "not_an_image",
    "pillars-1024x1024-truncated.jpg": "truncated",
    "pillars-1024x1024-truncated.png": "truncated",
    "truncated-photo.jpg": "truncated",
    "truncated-progressive.jpg": "truncated",
    "truncated-photo.png": "truncated",
    "page.jpg": "not_an_image",
}


def reason_or_pixels(data: bytes) -> str | np.ndarray:
    try:
        return decode(data, max_pixels=CAP).pixels
    except ImageError as error:
        return error.reason


@pytest.mark.parametrize(
    ("find", "folder"),
    [
        *((fixture, folder) for folder in ("pngsuite/png", "exif-orientation", "malformed", "edits")),
        *((real_data, folder) for folder in ("rabbit_malformed", "threatexchange_pdq")),
    ],
)
def test_every_odd_file_gives_pillows_pixels_or_its_reason(find: Find, folder: str) -> None:
    root = find(f"E_dedup_hostile/{folder}")
    paths = [path for path in sorted(root.rglob("*")) if path.suffix in (".png", ".jpg", ".bin")]
    assert len(paths) >= 6
    for path in paths:
        data = path.read_bytes()
        found = reason_or_pixels(data)
        if isinstance(found, str):
            assert REFUSED.get(path.name) == found, path.name
        elif path.name.endswith("0g16.png"):
            assert np.array_equal(found, scaled_grey(data)), path.name  # Pillow clips sixteen bits at 255
        else:
            assert path.name not in REFUSED
            expected = pillow_rgb(data)
            assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= 1, path.name


def scaled_grey(data: bytes) -> np.ndarray:
    import io

    image = Image.open(io.BytesIO(data))
    grey = np.rint(np.asarray(image).astype(np.float64) / 257)
    if "transparency" in image.info:
        grey[np.asarray(image) == image.info["transparency"]] = 255
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize("kind", ["Landscape", "Portrait"])
def test_all_eight_orientations_show_one_picture(kind: str) -> None:
    folder = fixture("E_dedup_hostile/exif-orientation")
    first, *others = [decode((folder / f"{kind}_{n}.jpg").read_bytes(), max_pixels=CAP).pixels for n in range(1, 9)]
    for number, other in enumerate(others, start=2):
        assert other.shape == first.shape, number
        assert np.abs(other.astype(int) - first).mean() < 5, (
            number
        )  # each file was encoded separately; a wrong rotation is over 30


@pytest.mark.parametrize("mode", ["no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"])
@pytest.mark.parametrize("find", [fixture, real_data])
def test_every_odd_file_is_processed(mode: str, find: Find) -> None:
    rule = ResizeRule(mode, 40)  # type: ignore[arg-type]
    for path in sorted(find("E_dedup_hostile").rglob("*")):
        if path.is_file():
            outcome = outcome_of(path.read_bytes(), rule)
            assert outcome in REASONS or outcome == (40, 40) or mode not in ("border", "center_crop"), path.name


def outcome_of(data: bytes, rule: ResizeRule) -> str | tuple[int, int]:
    try:
        done = process(data, rule, max_pixels=CAP)
    except ImageError as error:
        return error.reason
    assert done.pixels.shape == (done.height, done.width, 3) and done.data
    return done.width, done.height


def seeds() -> dict[str, list[bytes]]:
    frames = [Image.fromarray(photo(48, 32, seed)) for seed in range(3)]
    alpha = frames[0].copy()
    alpha.putalpha(90)
    return {
        "jpeg": [
            saved(photo(96, 64), "jpeg", icc_profile=matrix_profile(P3, 2.2), exif=exif(6)),
            saved(photo(96, 64), "jpeg", progressive=True),
            saved(frames[0].convert("CMYK"), "jpeg"),
            saved(photo(64, 48), "jpeg", restart_marker_blocks=4),
        ],
        "png": [saved(frames[0], "png", exif=exif(3)), saved(alpha.convert("P"), "png"), saved(alpha, "png")],
        "webp": [saved(frames[0], "webp"), saved(alpha, "webp", lossless=True, exif=exif(5))],
        "gif": [saved(frames[0], "gif", save_all=True, append_images=frames[1:])],
        "avif": [saved(frames[0], "avif"), saved(alpha, "avif")],
        "tiff": [saved(frames[0], "tiff"), saved(frames[0].convert("L"), "tiff", exif=exif(6))],
        "bmp": [saved(frames[0], "bmp"), saved(frames[0].convert("P"), "bmp")],
    }


SEEDS = seeds()


@pytest.mark.parametrize("format", SEEDS)
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_images_raise_one_error_or_are_decoded(format: str, data: st.DataObject) -> None:
    damaged = bytearray(data.draw(st.sampled_from(SEEDS[format])))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, min(len(damaged) - 1, data.draw(st.sampled_from([40, 400, 10**6])))))
        kind = data.draw(st.sampled_from(["set", "set", "cut", "grow", "end"]))
        if kind == "set":
            damaged[at] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del damaged[at : at + data.draw(st.integers(1, 60))]
        elif kind == "grow":
            damaged[at:at] = data.draw(st.binary(min_size=1, max_size=60))
        else:
            del damaged[max(at, 1) :]
        if not damaged:
            break
    outcome = outcome_of(bytes(damaged), ResizeRule("center_crop", 24))
    assert outcome in REASONS or outcome == (24, 24)


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_any_bytes_raise_one_error(data: bytes) -> None:
    for start in (
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WEBP",
        b"GIF89a",
        b"II*\0",
        b"\0\0\0\x18ftypavif",
    ):
        outcome = outcome_of(start + data, ResizeRule("center_crop", 24))
        assert outcome in REASONS or outcome == (24, 24)


@pytest.mark.parametrize(("find", "count"), [(fixture, 12), (real_data, 111)])
def test_all_photos_of_the_web_are_decoded(find: Find, count: int) -> None:
    paths = sorted(find("A_captioned/coco_free_licence").rglob("*.jpg"))
    assert len(paths) == count
    for path in paths:
        data = path.read_bytes()
        found = reason_or_pixels(data)
        assert isinstance(found, np.ndarray), (path.name, found)
        with Image.open(path) as image:
            has_profile = "icc_profile" in image.info
        if not has_profile:
            assert np.array_equal(found, pillow_rgb(data)), path.name


@pytest.mark.parametrize("find", [fixture, pytest.param(real_data, marks=pytest.mark.slow)])
def test_every_odd_file_has_one_outcome_in_a_run_over_the_web(find: Find, tmp_path: Path) -> None:
    """The files include texts, which are not images."""
    root = find("E_dedup_hostile")
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    with LoopbackServer({f"/{n}": reply(path.read_bytes()) for n, path in enumerate(files)}) as server:
        listing = tmp_path / "urls.parquet"
        urls = [server.url(f"/{n}") for n in range(len(files))]
        pq.write_table(pa.table({"url": urls, "caption": [path.name for path in files]}), listing)
        steps = [download(timeout_s=200, connect_timeout_s=200), {"resize": {"mode": "keep_ratio", "size": 64}}]
        steps.append({"dedupe_exact": {}})
        run(
            parse({"source": {"type": "url_list", "path": str(listing)}, "steps": steps}),
            tmp_path / "out",
            local=True,
            workers=2,
        )
    made = manifest(tmp_path / "out")
    assert made["rows"] == len(files) == made["kept"] + sum(line["rows"] for line in made["dropped"])
    assert {line["step"] for line in made["dropped"]} <= {"download", "resize", "dedupe_exact"}
    reasons = {line["reason"] for line in made["dropped"]}
    assert {"not_an_image", "corrupt", "truncated"} <= reasons and "decoder_crash" not in reasons
    bodies = {hashlib.sha256(body).digest(): body for body in map(Path.read_bytes, files)}
    rule = ResizeRule("keep_ratio", 64)
    assert made["kept"] == sum(not isinstance(outcome_of(body, rule), str) for body in bodies.values())
