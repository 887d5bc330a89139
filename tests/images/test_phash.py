"""Perceptual hashes equal floating-point references and are robust against real edits."""

import hashlib

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from tests.fixtures import Find, fixture
from tests.images.pictures import photo
from tests.real_data import real_data
from vlmdata.images.decode import decode
from vlmdata.images.encode import encode
from vlmdata.images.phash import COSINES, block_means, phash, phash_imagededup


def exact_block_means(grey: np.ndarray) -> np.ndarray:
    """Return means of 32 x 32 blocks in double precision, by repeating each pixel 32 times in both directions."""
    fine = np.kron(grey.astype(np.float64), np.ones((32, 32)))
    height, width = grey.shape
    return fine.reshape(32, height, 32, width).mean(axis=(1, 3))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (61, 47), (32, 32), (5, 90), (1, 1), (100, 31)])
def test_block_means_are_exact(width: int, height: int) -> None:
    pixels = photo(width, height)
    expected = exact_block_means(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    assert np.abs(block_means(pixels) - 256 * expected).max() <= 1.0


def test_block_means_of_a_picture_too_large_for_32_bits_are_exact() -> None:
    pixels = np.full((3000, 3000, 3), 250, np.uint8)
    pixels[:, 1500:] = 10
    means = block_means(pixels)
    assert set(means[:, :16].ravel().tolist()) == {250 * 256}
    assert set(means[:, 16:].ravel().tolist()) == {10 * 256}


def test_the_integer_hash_equals_the_floating_point_one() -> None:
    for seed in range(100):
        pixels = photo(150 + seed, 120, seed)
        coefficients = dctn(block_means(pixels).astype(np.float64), type=2)[:8, :8].ravel()
        bits = coefficients > np.median(coefficients[1:])
        assert phash(pixels) == int.from_bytes(np.packbits(bits).tobytes(), "big")


def test_the_table_of_cosines_is_the_same_everywhere() -> None:
    assert hashlib.sha256(COSINES.astype("<i8").tobytes()).hexdigest()[:16] == "80d0ad074d12ae67"
    assert phash(np.full((50, 70, 3), 77, np.uint8)) == 1 << 63


def imagededup_reference(image: Image.Image) -> str:
    """Return imagededup's PHash of RGB pixels, computed with imagededup's numpy code."""
    from scipy.fftpack import dct

    array = np.array(image.resize((32, 32), Image.Resampling.LANCZOS).convert("L"))
    low = dct(dct(array, axis=0), axis=1)[:8, :8]
    return "".join(f"{byte:02x}" for byte in np.packbits(low >= np.median(low.ravel()[1:])))


def test_values_equal_imagededups() -> None:
    for seed in range(40):
        pixels = photo(200 + seed, 150, seed)
        assert f"{phash_imagededup(pixels):016x}" == imagededup_reference(Image.fromarray(pixels))


@pytest.mark.parametrize("find", [fixture, real_data])
def test_resizing_and_encoding_change_few_bits_and_other_images_many(find: Find) -> None:
    folder = find("A_captioned/coco_free_licence")
    photos = [decode(path.read_bytes(), max_pixels=10**7).pixels for path in sorted(folder.rglob("*.jpg"))[:60]]
    hashes = [phash(pixels) for pixels in photos]
    for pixels, known in zip(photos, hashes, strict=True):
        small = cv2.resize(pixels, (pixels.shape[1] // 3, pixels.shape[0] // 3), interpolation=cv2.INTER_AREA)
        written = decode(encode(small, "jpeg", 50), max_pixels=10**7).pixels
        assert (phash(written) ^ known).bit_count() <= 4
    apart = [(a ^ b).bit_count() for n, a in enumerate(hashes) for b in hashes[:n]]
    assert min(apart) > 8 and 28 < np.mean(apart) < 36


@pytest.mark.parametrize(("find", "edits"), [(fixture, "edits"), (real_data, "threatexchange_pdq")])
@pytest.mark.parametrize("hash_of", [phash, phash_imagededup])
def test_edits_of_a_photo_stay_near_and_its_rotations_do_not(hash_of: object, find: Find, edits: str) -> None:
    folder = find(f"E_dedup_hostile/{edits}")

    def hashed(path: str) -> int:
        return hash_of(decode((folder / path).read_bytes(), max_pixels=10**7).pixels)  # type: ignore[operator]

    original = hashed("bridge-mods/aaa-orig.jpg")
    for name in ("blur-a-little", "shrink-a-little", "shrink-a-lot", "sharpen-a-little", "high-saturation"):
        assert (hashed(f"bridge-mods/{name}.jpg") ^ original).bit_count() <= 8, name
    for turned in ("2-rotate-90", "3-rotate-180", "5-flipx"):
        assert (hashed(f"reg-test-input/dih/bridge-{turned}.jpg") ^ original).bit_count() > 16, turned
