import cv2
import numpy as np

from tests.rows import captions
from vlmdata.images.decode import decode
from vlmdata.images.phash import phash_imagededup
from vlmdata.steps.dedupe_phash import DedupePhash
from vlmdata.steps.imagededup_hash import ImagededupHash


class Bodies:
    """A partition that returns each blob's name as its bytes, in place of reading them from disk."""

    def __init__(self, bodies: dict[str, bytes]) -> None:
        self.bodies = bodies

    def image_bytes(self, blob: str, offset: int, size: int) -> bytes:
        return self.bodies[blob][offset : offset + size]


def test_hashes_equal_those_of_imagededup_and_work_in_dedupe_phash() -> None:
    coarse = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    picture = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)
    large = cv2.imencode(".png", picture)[1].tobytes()
    small = cv2.imencode(".jpg", cv2.resize(picture, (160, 120), interpolation=cv2.INTER_AREA))[1].tobytes()
    bodies = {"a": large, "b": small, "c": b"no picture"}
    rows = captions(
        list("abc"),
        blob=list("abc"),
        offset=[0, 0, 0],
        size=[len(body) for body in bodies.values()],
        width=[320, 160, 9],
        height=[240, 120, 9],
    )
    found = ImagededupHash().run(rows, Bodies(bodies))  # type: ignore[arg-type]
    values = found["imagededup_hash"].to_pylist()
    assert values[0] == [phash_imagededup(decode(large, max_pixels=10**6).pixels), None]
    assert values[2] == [None, None]
    assert DedupePhash(hash="imagededup_hash").run(found)["drop"].to_pylist() == [None, "dedupe_phash", None]
