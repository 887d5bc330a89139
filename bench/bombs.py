"""What hostile images cost at the default limits. Each image is processed in a new process, to a short side of 256 pixels.

Each kind has two sizes: one near the largest that the limits admit, found by bisection, and one a quarter larger. A line shows
the bytes of the file, the outcome, the rise of resident memory and the CPU seconds. The rise is the kernel's high-water mark
minus its value before the image; a small image is processed first, so that all libraries are loaded.
"""

from __future__ import annotations

import argparse
import io
import json
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlmdata.images.budget import MAX_COST, MAX_MEMORY_MB, decoding_bytes, decoding_cost
from vlmdata.images.facts import ImageError
from vlmdata.images.header import read_header
from vlmdata.images.process import process
from vlmdata.images.resize import ResizeRule

Make = Callable[[int], bytes]  # the side of a square in pixels -> an image

TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
SAMPLE, LONGEST = 1024, 16_000  # pixels


def saved(image: Image.Image, format: str, **settings: Any) -> bytes:
    """Return an image's bytes in `format`."""
    out = io.BytesIO()
    image.save(out, format, **settings)
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, kind: int, depth: int, *, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """Return a PNG of zeros with the given depth and colour type: 0 grey, 2 rgb, 3 palette, 4 grey and alpha, 6 rgb and
    alpha."""
    row = b"\0" * (1 + (width * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind] * depth + 7) // 8)
    packer, body = zlib.compressobj(9), b""
    for _ in range(2 * height if interlaced else height):  # the seven passes have fewer than twice the rows
        body += packer.compress(row)
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlaced)
    palette = chunk(b"PLTE", bytes(768)) if kind == 3 else b""
    parts = [chunk(b"IHDR", head), palette, extra, chunk(b"IDAT", body + packer.flush()), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_of_texts(_: int) -> bytes:
    """Return a PNG of one pixel with 64 text chunks that unpack to a megabyte each."""
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000), 9))
    return png(1, 1, 0, 8, extra=text * 64)


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG that repeats its last scan `scans` times."""
    data = flat(side, "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def jpeg_by_component(side: int) -> bytes:
    """Return a baseline JPEG of zeros with one scan per component, which makes the decoder keep all coefficients to the end."""
    table = b"\xff\xc4\0\x14%c\1" + bytes(16)  # a single code of one bit, for zero
    size = b"\xff\xc0\0\x11\x08" + struct.pack(">HH", side, side) + b"\3\1\x11\0\2\x11\0\3\x11\0"
    head = b"\xff\xd8\xff\xdb\0\x43\0" + b"\1" * 64 + size + table % 0 + table % 16
    scan = bytes(-(-2 * (-(-side // 8)) ** 2 // 8))  # one bit for the mean of each block, and one for its end
    return head + b"".join(b"\xff\xda\0\x08\1%c\0\0\x3f\0" % n + scan for n in (1, 2, 3)) + b"\xff\xd9"


def flat(side: int, format: str, *, mode: str = "RGB", **settings: Any) -> bytes:
    """Return a square of one colour."""
    image = Image.new("RGB", (side, side), (9, 80, 200))
    if mode == "RGBA":
        image.putalpha(90)
    return saved(image if mode in ("RGB", "RGBA") else image.convert(mode), format, **settings)


def noise(side: int, format: str, **settings: Any) -> bytes:
    """Return a square of noise."""
    return saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)), format, **settings)


def frames(side: int, format: str, count: int = 3, **settings: Any) -> bytes:
    """Return an image of several frames."""
    mode = "L" if format == "GIF" else "RGB"
    first, *others = (Image.new(mode, (side, side), 90 * n) for n in range(count))
    return saved(first, format, save_all=True, append_images=others, **settings)


def deep_tiff(side: int) -> bytes:
    """Return a grey TIFF of 16 bits."""
    return saved(Image.fromarray(np.zeros((side, side), np.uint16)), "TIFF", compression="tiff_lzw")


def line(side: int, *, upright: bool) -> bytes:
    """Return a PNG of one row or one column, with at most two million pixels."""
    length = min(side * side, 2_000_000)
    return png(*((1, length) if upright else (length, 1)), 6, 8)


def square(side: int, kind: int, depth: int, **settings: Any) -> bytes:
    """Return a square PNG."""
    return png(side, side, kind, depth, **settings)


def kinds() -> Iterator[tuple[str, Make]]:
    """Yield the name of each kind of bomb and the function that makes one."""
    yield from _pngs()
    yield from _jpegs()
    for mode in ("RGB", "RGBA"):
        yield f"WebP {mode}", partial(flat, format="WEBP", mode=mode, method=0)
        yield f"WebP lossless {mode}", partial(flat, format="WEBP", mode=mode, method=0, lossless=True)
        yield f"AVIF {mode}", partial(flat, format="AVIF", mode=mode, speed=10)
    yield "WebP noise", partial(noise, format="WEBP", method=0)
    yield "WebP lossless noise", partial(noise, format="WEBP", method=0, lossless=True, quality=0)
    yield "WebP turned", partial(flat, format="WEBP", method=0, exif=TURNED)
    yield "WebP animated", partial(frames, format="WEBP", method=0)
    yield "AVIF 4:4:4", partial(flat, format="AVIF", speed=10, subsampling="4:4:4")
    yield "AVIF noise", partial(noise, format="AVIF", speed=10)
    yield "AVIF animated", partial(frames, format="AVIF", speed=10)
    yield "GIF", partial(flat, format="GIF", mode="L")
    yield "GIF animated", partial(frames, format="GIF")
    for mode in ("1", "L", "RGB", "RGBA", "CMYK"):
        yield f"TIFF LZW {mode}", partial(flat, format="TIFF", mode=mode, compression="tiff_lzw")
    yield "TIFF one strip", partial(flat, format="TIFF", compression="tiff_lzw", strip_size=1 << 30)
    yield "TIFF JPEG", partial(flat, format="TIFF", compression="jpeg")
    yield "TIFF fax", partial(flat, format="TIFF", mode="1", compression="group4")
    yield "TIFF grey 16", deep_tiff
    yield "TIFF turned", partial(flat, format="TIFF", compression="tiff_lzw", tiffinfo={274: 6})
    yield "TIFF frames", partial(frames, format="TIFF", compression="tiff_lzw")
    yield "BMP 24", partial(flat, format="BMP")
    yield "BMP 8", partial(flat, format="BMP", mode="L")
    yield "BMP packed", packed_bmp
    yield "ICO", lambda _: flat(256, "ICO")


def _pngs() -> Iterator[tuple[str, Make]]:
    for kind, name in ((0, "grey"), (2, "rgb"), (3, "palette"), (4, "grey alpha"), (6, "rgb alpha")):
        for depth in {0: (1, 8, 16), 3: (1, 8)}.get(kind, (8, 16)):
            yield f"PNG {name} {depth}", partial(square, kind=kind, depth=depth)
    yield "PNG rgb interlaced", partial(square, kind=2, depth=8, interlaced=True)
    yield "PNG grey with a transparent colour", partial(square, kind=0, depth=8, extra=chunk(b"tRNS", b"\0\0"))
    yield "PNG palette with alpha", partial(square, kind=3, depth=8, extra=chunk(b"tRNS", bytes(256)))
    yield "PNG one row", partial(line, upright=False)
    yield "PNG one column", partial(line, upright=True)
    yield "PNG turned", partial(flat, format="PNG", exif=TURNED[6:])
    yield "PNG texts", png_of_texts
    yield "APNG", partial(frames, format="PNG")
    yield "PNG noise", partial(noise, format="PNG", compress_level=1)


def _jpegs() -> Iterator[tuple[str, Make]]:
    for mode in ("RGB", "L", "CMYK"):
        yield f"JPEG {mode}", partial(flat, format="JPEG", mode=mode)
        yield f"JPEG progressive {mode}", partial(flat, format="JPEG", mode=mode, progressive=True)
    yield "JPEG progressive 4:4:4", partial(flat, format="JPEG", progressive=True, subsampling=0)
    yield "JPEG progressive noise", partial(noise, format="JPEG", progressive=True)
    yield "JPEG turned", partial(flat, format="JPEG", exif=TURNED)
    yield "JPEG a scan a component", jpeg_by_component
    yield "JPEG 90 scans", partial(jpeg_of_scans, scans=80)
    yield "MPO", partial(frames, format="MPO")


def packed_bmp(side: int) -> bytes:
    """Return a BMP whose rows store one pixel and an end of line, so that the decoder fills in the rest pixel by pixel."""
    palette = b"".join(bytes([n, n, 255 - n, 0]) for n in range(256))
    body = b"\1\1\0\0" * side + b"\0\1"
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(body), 0, 0, 54 + 1024) + info + palette + body


def largest(make: Make) -> int:
    """Return a side near the largest that the default limits admit, estimated from the header of an image of 1,024 pixels."""
    data = make(SAMPLE)
    try:
        header = read_header(data)
    except ImageError:
        return SAMPLE
    low, high = 512, LONGEST
    while high - low > 8:
        middle = (low + high) // 2
        scale = (middle / SAMPLE) ** 2
        held, coded = round(header.held_bytes * scale), round(header.coded_pixels * scale)
        grown = replace(header, width=middle, height=middle, held_bytes=held, coded_pixels=coded)
        fits = decoding_bytes(grown, round(len(data) * scale), 8) <= MAX_MEMORY_MB * 1e6 and decoding_cost(grown) <= MAX_COST
        low, high = (middle, high) if fits else (low, middle)
    return low - low // 100  # encoded bytes grow slightly slower than the area


def measure(path: Path, small: Path, step: str) -> dict[str, Any]:
    """Process one file in this process and return its outcome, the rise of memory and the CPU seconds."""
    rule = ResizeRule("keep_ratio", 256) if step == "resize" else ResizeRule("no")
    process(small.read_bytes(), rule)
    data = path.read_bytes()
    before, began, found = peak_mb(), time.process_time(), {}
    try:
        done = process(data, rule)
        outcome, found["pixels"] = "taken", done.original_width * done.original_height
    except ImageError as error:
        outcome, found["value"] = error.reason, error.value
    return {"outcome": outcome, "mb": round(peak_mb() - before, 1), "cpu_s": round(time.process_time() - began, 2), **found}


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, in MB (10^6 bytes)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def run(data: bytes, folder: Path, step: str = "resize") -> dict[str, Any]:
    """Measure an image in a new process."""
    path, small = folder / "bomb", folder / "small"
    path.write_bytes(data)
    format = next((name for name in ("JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP") if _is(data, name)), "PNG")
    small.write_bytes(noise(64, format))
    command = [sys.executable, "-m", "bench.bombs", "--one", str(path), "--small", str(small), "--step", step]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    return json.loads(done.stdout)


def _is(data: bytes, format: str) -> bool:
    marks = {"JPEG": data[:2] == b"\xff\xd8", "WEBP": data[8:12] == b"WEBP", "AVIF": data[4:8] == b"ftyp"}
    return marks.get(format, data[:2] == {"GIF": b"GI", "TIFF": b"II", "BMP": b"BM"}.get(format))


def main() -> None:
    """Print a line for each bomb, then the largest rise and the longest time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--small", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--step", choices=["resize", "no"], default="resize")
    parser.add_argument("--kind", default="", help="only kinds whose name contains this text")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.small, given.step)))
        return
    found = []
    print(f"{'kind':36} {'side':>6} {'bytes':>11} {'outcome':>15} {'MB':>6} {'CPU s':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for name, make in ((name, make) for name, make in kinds() if given.kind in name):
            side = largest(make)
            for each in (side,) if side == SAMPLE else (side, side * 5 // 4):
                data = make(each)
                one = run(data, Path(folder), given.step)
                print(f"{name:36} {each:6} {len(data):11,} {one['outcome']:>15} {one['mb']:6} {one['cpu_s']:6}", flush=True)
                found.append((name, one))
    most, longest = (max((one[of], name) for name, one in found) for of in ("mb", "cpu_s"))
    print(f"{len(found)} bombs; most memory {most[0]} MB, {most[1]}; longest {longest[0]} CPU s, {longest[1]}")


if __name__ == "__main__":
    main()
