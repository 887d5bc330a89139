"""Images per CPU second from a JPEG to the 336 x 336 pixels of a model, for each decoder that a training loop may use.

    python -m bench.loader_decoders [FOLDER]

Sources: made-up JPEGs of 384 x 384 (50 kB), and the photos of FOLDER (coco_free_licence, 640 pixels on the long side), as they
are and tiled to 2,560 pixels. The shorter side is resized to 336, then the centre is cropped. One thread; the best of five
rounds; PSNR against Pillow's full decode and bilinear filter.
"""

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional

from bench.images import DATA, tiled
from vlmdata.images.encode import encode
from vlmdata.loader.decoding import Decode

SIZE, ROUNDS = 336, 5
SAMPLE = {"__key__": "0", "__url__": "0.tar", "__seed__": 0}


def crop(pixels: np.ndarray) -> np.ndarray:
    top, left = ((side - SIZE) // 2 for side in pixels.shape[:2])
    return pixels[top : top + SIZE, left : left + SIZE]


def scaled(width: int, height: int) -> tuple[int, int]:
    return max(SIZE, round(width * SIZE / min(width, height))), max(SIZE, round(height * SIZE / min(width, height)))


def by_area(pixels: np.ndarray) -> np.ndarray:
    return crop(cv2.resize(pixels, scaled(*pixels.shape[1::-1]), interpolation=cv2.INTER_AREA))


def pillow(data: bytes, *, draft: bool = False) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    size = scaled(*image.size)
    if draft:
        image.draft("RGB", size)
    return crop(np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR)))


def torchvision(data: bytes) -> np.ndarray:
    planes = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    size = scaled(planes.shape[2], planes.shape[1])
    return crop(functional.resize(planes, list(size[::-1]), antialias=True).permute(1, 2, 0).numpy())


def torchvision_area(data: bytes) -> np.ndarray:
    planes = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return by_area(planes.permute(1, 2, 0).numpy())


METHODS: dict[str, Callable[[bytes], np.ndarray]] = {
    "Decode(336)": lambda data: Decode(SIZE)({**SAMPLE, "jpg": data})["jpg"],
    'Decode(336, filter="area")': lambda data: Decode(SIZE, filter="area")({**SAMPLE, "jpg": data})["jpg"],
    "simplejpeg, cv2 area": lambda data: by_area(simplejpeg.decode_jpeg(data)),
    "cv2, area": lambda data: by_area(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)),
    "torchvision": torchvision,
    "torchvision, cv2 area": torchvision_area,
    "Pillow": pillow,
    "Pillow with draft": lambda data: pillow(data, draft=True),
}


def sets(folder: Path) -> dict[str, list[bytes]]:
    random = np.random.default_rng(0)
    made = []
    for _ in range(50):
        small = random.integers(0, 255, (96, 96, 3), np.uint8)
        fine = random.normal(0, 9, (384, 384, 3))
        pixels = np.clip(cv2.resize(small, (384, 384), interpolation=cv2.INTER_CUBIC) + fine, 0, 255).astype(np.uint8)
        made.append(encode(pixels, "jpeg", 75))
    photos = [path.read_bytes() for path in sorted((folder / "coco_free_licence").rglob("*.jpg"))[:50]]
    large = [encode(tiled(simplejpeg.decode_jpeg(photo), 2560 * 1920), "jpeg", 90) for photo in photos[:10]]
    return {"384, made": made} | ({"640, photos": photos, "2,560, tiled": large} if photos else {})


def psnr(found: np.ndarray, reference: np.ndarray) -> float:
    error = np.mean((found.astype(float) - reference) ** 2)
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


def main() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pictures = sets(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
    for name, images in pictures.items():
        print(f"{name}: {len(images)} JPEGs, {sum(map(len, images)) / len(images) / 1000:.0f} kB on average", flush=True)
    best = {(method, name): 0.0 for method in METHODS for name in pictures}
    for _ in range(ROUNDS):  # methods take turns, so that load on the machine affects all of them
        for name, images in pictures.items():
            for method, make in METHODS.items():
                start = time.process_time()
                for data in images:
                    make(data)
                best[method, name] = max(best[method, name], len(images) / (time.process_time() - start))
    heads = "".join(f" {name} | dB |" for name in pictures)
    print(f"\n| images per CPU second |{heads}\n|---|{'---|---|' * len(pictures)}")
    for method, make in METHODS.items():
        quality = [np.median([psnr(make(data), pillow(data)) for data in images]) for images in pictures.values()]
        cells = [f" {best[method, name]:,.0f} | {dB:.0f} |" for name, dB in zip(pictures, quality, strict=True)]
        print(f"| {method} |{''.join(cells)}")


if __name__ == "__main__":
    main()
