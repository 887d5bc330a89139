import struct
from pathlib import Path

import numpy as np
import pytest

from vlmdata.errors import RecipeError
from vlmdata.similarity.array_files import npy_shape


def written(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


HOSTILE = {
    "an endless shape": written("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000000000000, 4)}\n"),
    "a negative shape": written("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4)}\n", bytes(64)),
    "a shape of truths": written("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 4)}\n", bytes(64)),
    "objects": written("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", b"\x80\x04K\x01."),
    "open brackets": written("(" * 5000),
    "a length without a header": b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
    "fewer numbers than stated": written("{'descr': '<f4', 'fortran_order': False, 'shape': (9, 4)}\n", bytes(16)),
    "the beginning of an archive": b"PK\x03\x04no archive",
    "a pickle": b"\x80\x04K\x01.",
    "nothing": b"",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_damaged_or_hostile_file_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    (tmp_path / "a.npy").write_bytes(HOSTILE[what])
    with pytest.raises(RecipeError, match=r"norm_sim\.targets: .*a\.npy is not a \.npy file of numbers") as caught:
        npy_shape(str(tmp_path / "a.npy"), "norm_sim.targets")
    assert "\n" not in str(caught.value)


def test_an_array_in_columns_has_its_shape(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(np.ones((5, 3))))
    assert npy_shape(str(tmp_path / "a.npy"), "p") == (5, 3)
