"""PDQ gives the bits that the reference gives."""

import numpy as np
import pytest

from tests.images.pictures import photo
from tests.real_data import real_data
from vlmdata.images.decode import decode
from vlmdata.images.pdq import pdq

REFERENCE = {  # of the package pdqhash 0.2.8, the reference code behind Python
    "bridge-mods/aaa-orig.jpg": "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22",
    "bridge-mods/blur-a-little.jpg": "f8f8f0cee0f4a84f06370a2a038f63f0b36e26d596621e1d33e6b39c4e9c9b22",
    "bridge-mods/blur-a-lot.jpg": "f8f8f0cee0f4a84f0637022a038f67f0b36e26d596621e1d33e6b39c4e9c9b22",
}


@pytest.mark.parametrize("name", REFERENCE)
def test_every_bit_is_the_references(name: str) -> None:
    path = real_data("E_dedup_hostile/threatexchange_pdq") / name
    value, quality = pdq(decode(path.read_bytes(), max_pixels=10**7).pixels)
    assert quality == 100 and (value ^ int(REFERENCE[name], 16)).bit_count() <= 2  # decoders differ by a level here and there


def test_edits_stay_within_the_distance_and_a_rotation_does_not() -> None:
    folder = real_data("E_dedup_hostile/threatexchange_pdq")

    def hashed(path: str) -> int:
        return pdq(decode((folder / path).read_bytes(), max_pixels=10**7).pixels)[0]

    original = hashed("bridge-mods/aaa-orig.jpg")
    for name in ("shrink-a-little", "shrink-a-lot", "high-saturation", "sharpen-a-little"):
        assert (hashed(f"bridge-mods/{name}.jpg") ^ original).bit_count() <= 31, name
    assert (hashed("reg-test-input/dih/bridge-3-rotate-180.jpg") ^ original).bit_count() > 31


def test_a_flat_picture_has_no_quality_and_the_smallest_one_has_a_hash() -> None:
    assert pdq(np.full((80, 60, 3), 128, np.uint8))[1] == 0
    assert pdq(np.zeros((1, 1, 3), np.uint8))[1] == 0
    assert pdq(photo(300, 200))[1] > 0
