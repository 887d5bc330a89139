from pathlib import Path

import cv2
import numpy as np

from tests.parts import open_part
from tests.rows import captions
from vlmdata.row import flatten
from vlmdata.steps.dedupe_pdq import DedupePdq
from vlmdata.steps.pdq_hash import PdqHash


def test_copies_are_within_the_distance_and_broken_pictures_have_no_hash(tmp_path: Path) -> None:
    coarse = [np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8) for seed in (0, 1)]
    first, other = (cv2.resize(one, (320, 240), interpolation=cv2.INTER_CUBIC) for one in coarse)
    small = cv2.resize(first, (200, 150), interpolation=cv2.INTER_AREA)
    bodies = [cv2.imencode(".jpg", one)[1].tobytes() for one in (first, small, other)] + [b"no picture"]
    paths = [tmp_path / f"{number}.jpg" for number in range(4)]
    for path, body in zip(paths, bodies, strict=True):
        path.write_bytes(body)
    rows = captions(list("abcd"), blob=list(map(str, paths)), offset=[0] * 4, size=list(map(len, bodies)))
    found = PdqHash().run(rows, open_part(tmp_path / "out"))
    hashes = flatten(found, "pdq_hash").items.to_pylist()[::2]
    assert [value and len(value) for value in hashes] == [32, 32, 32, None]
    assert found["pdq_hash.quality"].to_pylist()[3] == [None, None]
    assert DedupePdq().run(found)["drop"].to_pylist() == [None, "dedupe_pdq", None, None]
