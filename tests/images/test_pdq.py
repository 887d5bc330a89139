"""PDQ hashes equal those of the reference implementation."""

import numpy as np
import pytest

from tests.fixtures import Find, fixture
from tests.images.pictures import photo
from tests.real_data import real_data
from vlmdata.images.decode import decode
from vlmdata.images.pdq import pdq

REFERENCE = {  # computed by the package pdqhash 0.2.8, which wraps the reference code, from pixels decoded by Pillow
    "edits/bridge-mods/aaa-orig.jpg": "da7692a5963b64a86d1b6146925196d3a9b44dbdc9387cd972da35e639a6c822",
    "edits/bridge-mods/blur-a-lot.jpg": "da7692a596bb64a86d6b6146925196d3a9b46dbdc9387cd972da25a639a6c802",
    "edits/bridge-mods/shrink-a-lot.jpg": "da569225963b64aa6da9654e124196d3a1b46db5e9385dd972db34a63ba6e902",
    "edits/reg-test-input/dih/bridge-3-rotate-180.jpg": "9f03308fc3624e0030eccfe046153cf9f5c1871f3cefc473078e9f0c6cf373a8",
}
REAL_REFERENCE = {
    "bridge-mods/aaa-orig.jpg": "f8f8f0cee0f4a84f06370a22038f63f0b36e2ed596621e1d33e6b39c4e9c9b22",
    "bridge-mods/blur-a-little.jpg": "f8f8f0cee0f4a84f06370a2a038f63f0b36e26d596621e1d33e6b39c4e9c9b22",
    "bridge-mods/blur-a-lot.jpg": "f8f8f0cee0f4a84f0637022a038f67f0b36e26d596621e1d33e6b39c4e9c9b22",
}


@pytest.mark.parametrize(
    ("find", "name", "expected"),
    [
        *((fixture, name, expected) for name, expected in REFERENCE.items()),
        *((real_data, f"threatexchange_pdq/{name}", expected) for name, expected in REAL_REFERENCE.items()),
    ],
)
def test_every_bit_equals_the_references(find: Find, name: str, expected: str) -> None:
    value, quality = pdq(decode(find(f"E_dedup_hostile/{name}").read_bytes(), max_pixels=10**7).pixels)
    assert quality == 100 and (value ^ int(expected, 16)).bit_count() <= 2  # decoders differ by a level in a few pixels


@pytest.mark.parametrize(("find", "edits"), [(fixture, "edits"), (real_data, "threatexchange_pdq")])
def test_edits_stay_within_the_distance_and_a_rotation_does_not(find: Find, edits: str) -> None:
    folder = find(f"E_dedup_hostile/{edits}")

    def hashed(path: str) -> int:
        return pdq(decode((folder / path).read_bytes(), max_pixels=10**7).pixels)[0]

    original = hashed("bridge-mods/aaa-orig.jpg")
    for name in ("shrink-a-little", "shrink-a-lot", "high-saturation", "sharpen-a-little"):
        assert (hashed(f"bridge-mods/{name}.jpg") ^ original).bit_count() <= 31, name
    assert (hashed("reg-test-input/dih/bridge-3-rotate-180.jpg") ^ original).bit_count() > 31


def test_a_flat_image_has_quality_zero_and_the_smallest_one_has_a_hash() -> None:
    assert pdq(np.full((80, 60, 3), 128, np.uint8))[1] == 0
    assert pdq(np.zeros((1, 1, 3), np.uint8))[1] == 0
    assert pdq(photo(300, 200))[1] > 0
