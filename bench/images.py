"""CPU time from encoded to encoded bytes of one image: vlmdata against the bare work, cv2, Pillow and img2dataset's Resizer.

    python -m bench.images [FOLDER]

FOLDER holds coco_free_licence (photos of 640 pixels) and openstax/sociology-3e (figures of 900), as ../shared/data does. All
are re-encoded at about 92 kB, and the figures are also tiled to 8 megapixels. One thread; CPU seconds of this process; methods
take turns on all images, and the median of five rounds counts. PSNR compares the pixels before encoding with a full decode and
an area resize; the PSNR of Pillow's Lanczos shows the effect of another filter alone.
"""

import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from bench.inputs.real_data import ROOT
from vlmdata.images.decode import SHRINK_GAPS, decode, shrink_factor
from vlmdata.images.encode import encode
from vlmdata.images.header import read_header
from vlmdata.images.process import process
from vlmdata.images.resize import ResizeRule, resize, scale_to, transform

ROUNDS = 5
DATA = ROOT / "A_captioned"
Method = Callable[[bytes, ResizeRule], object]


def near_bytes(pixels: np.ndarray, wanted: int) -> bytes:
    """Return a JPEG of about `wanted` bytes. The quality is found by bisection."""
    low, high = 30, 98
    while low < high:
        middle = (low + high) // 2
        if len(encode(pixels, "jpeg", middle)) < wanted:
            low = middle + 1
        else:
            high = middle
    return encode(pixels, "jpeg", low)


def pictures(folder: Path, count: int) -> list[np.ndarray]:
    return [decode(path.read_bytes(), max_pixels=10**8).pixels for path in sorted(folder.rglob("*.jpg"))[:count]]


def tiled(photo: np.ndarray, wanted: int) -> np.ndarray:
    """Repeat a photo in both directions up to about `wanted` pixels. Enlarging it would make it too easy to decode."""
    height, width = photo.shape[:2]
    times = max(1, round((wanted / (height * width)) ** 0.5))
    return np.tile(photo, (times, times, 1))


def sets(folder: Path) -> dict[str, list[bytes]]:
    photos = pictures(folder / "coco_free_licence", 100)
    figures = pictures(folder / "openstax/sociology-3e", 100)
    if not photos or not figures:
        sys.exit(f"no *.jpg in {folder}/coco_free_licence or {folder}/openstax/sociology-3e")
    return {
        "640 px, 92 kB": [near_bytes(photo, 92_000) for photo in photos],
        "900 px, 92 kB": [near_bytes(figure, 92_000) for figure in figures],
        "8 MP": [encode(tiled(figure, 8_000_000), "jpeg", 85) for figure in figures[:12]],
    }


def bare(data: bytes, rule: ResizeRule) -> bytes:
    """Do the least work that gives the same result, without header checks, limits or hashes."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    size = transform(rule, width, height).scaled
    gaps = SHRINK_GAPS.items()
    factor = next((k for k, gap in gaps if width >= gap * k * size[0] and height >= gap * k * size[1]), 1)
    pixels = simplejpeg.decode_jpeg(data, min_width=-(-width // factor), min_height=-(-height // factor), min_factor=factor)
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return simplejpeg.encode_jpeg(small, rule.quality, "RGB", "420", fastdct=False)


def ours(data: bytes, rule: ResizeRule) -> object:
    return process(data, rule, max_pixels=10**8)


def cv2_full(data: bytes, rule: ResizeRule) -> object:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    small = resize(pixels, rule)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, rule.quality])[1].tobytes()


def pillow_lanczos(data: bytes, rule: ResizeRule) -> object:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    small = image.resize(transform(rule, *image.size).scaled, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=rule.quality)
    return out.getvalue()


def img2dataset(rule: ResizeRule) -> Method:
    from img2dataset.resizer import Resizer

    resizer = Resizer(rule.size, rule.mode, rule.only_if_bigger, encode_quality=rule.quality)

    def run(data: bytes, rule: ResizeRule) -> object:
        written, *_, error = resizer(io.BytesIO(data))
        assert error is None
        return written

    return run


def milliseconds(methods: dict[str, Method], images: list[bytes], rule: ResizeRule) -> dict[str, float]:
    """Return each method's CPU milliseconds per image, as the median over rounds in which the methods take turns."""
    rounds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(ROUNDS):
        for name, method in methods.items():
            start = time.process_time()
            for data in images:
                method(data, rule)
            rounds[name].append((time.process_time() - start) / len(images) * 1000)
    return {name: statistics.median(times) for name, times in rounds.items()}


def psnr(pixels: np.ndarray, exact: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((exact.astype(np.float64) - pixels) ** 2), 1e-9))


def qualities(images: list[bytes], rule: ResizeRule) -> dict[str, str]:
    """Return the mean and the least PSNR (dB) of ours and of Pillow's Lanczos against a full decode and an area resize.

    Only images that were shrunk while decoding count, because the others are equal bit for bit.
    """
    found: dict[str, list[float]] = {"vlmdata": [], "Pillow Lanczos": []}
    for data in images:
        header = read_header(data)
        size = transform(rule, *header.upright_size).scaled
        if shrink_factor(header, size) == 1:
            continue
        whole = decode(data, max_pixels=10**8).pixels
        exact = scale_to(whole, size)
        found["vlmdata"].append(psnr(scale_to(decode(data, max_pixels=10**8, target=size).pixels, size), exact))
        lanczos = Image.fromarray(whole).resize(size, Image.Resampling.LANCZOS)
        found["Pillow Lanczos"].append(psnr(np.asarray(lanczos), exact))
    shrunk = f"({len(found['vlmdata'])} of {len(images)} shrunk)"
    return {name: f"{statistics.mean(v):.1f} / {min(v):.1f} {shrunk}" for name, v in found.items() if v}


def main() -> None:
    images_of = sets(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
    print("| images | to | method | CPU ms | of bare work | PSNR mean / least, dB |")
    print("|---|---|---|---|---|---|")
    for label, images in images_of.items():
        for size in (256, 384):
            rule = ResizeRule("keep_ratio", size)
            methods: dict[str, Method] = {
                "bare work": bare,
                "vlmdata": ours,
                "cv2, full decode": cv2_full,
                "Pillow Lanczos": pillow_lanczos,
                "img2dataset Resizer": img2dataset(rule),
            }
            times = milliseconds(methods, images, rule)
            quality = qualities(images, rule)
            for name, took in times.items():
                ratio = took / times["bare work"]
                print(f"| {label} | {size} | {name} | {took:.2f} | {ratio:.2f} | {quality.get(name, '')} |", flush=True)


if __name__ == "__main__":
    main()
