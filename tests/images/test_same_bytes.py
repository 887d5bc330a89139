"""The same input gives the same output on a second run and without cv2's processor-specific code."""

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.images.pictures import photo, saved
from vlmdata.images.blur_boxes import blur_boxes
from vlmdata.images.decode import decode
from vlmdata.images.measure import entropy, sharpness, spread
from vlmdata.images.phash import phash
from vlmdata.images.process import process
from vlmdata.images.resize import ResizeRule

ROOT = Path(__file__).resolve().parent.parent.parent


def digests() -> list[str]:
    """Return the results of all functions that must be reproducible, for a few images."""
    found = []
    for width, height in ((640, 480), (333, 501), (90, 60)):
        for format in ("jpeg", "png", "webp"):
            data = saved(photo(width, height), format)
            pixels = decode(data, max_pixels=10**7).pixels
            found.append(hashlib.sha256(pixels.tobytes()).hexdigest())
            found += [f"{spread(pixels)!r} {sharpness(pixels)!r} {entropy(pixels):.9f} {phash(pixels)}"]
            found.append(hashlib.sha256(blur_boxes(pixels, [(10, 10, 60, 50)]).tobytes()).hexdigest())
            for size in (77, 128, 400):
                done = process(data, ResizeRule("border", size, format="png" if size == 77 else "jpeg"), max_pixels=10**7)
                found.append(f"{hashlib.sha256(done.data).hexdigest()} {done.phash}")
            done = process(data, ResizeRule("center_crop", 100, format="webp"), max_pixels=10**7)
            found.append(f"{hashlib.sha256(done.data).hexdigest()} {done.phash}")
    return found


def test_a_second_run_is_the_same() -> None:
    assert digests() == digests()


def test_the_result_without_fast_paths_is_the_same() -> None:
    script = (
        "import cv2; cv2.setUseOptimized(False); cv2.ipp.setUseIPP(False); assert not cv2.useOptimized()\n"
        "from tests.images.test_same_bytes import digests; print('\\n'.join(digests()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=800, check=True)
    assert done.stdout.split("\n")[:-1] == digests()
