"""Reads the files of MTCNN's weights from the wheel of facenet-pytorch or from a folder, without running code from either."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from vlmdata.errors import RecipeError
from vlmdata.home_folder import at_home
from vlmdata.untrusted import errors_as, one_line

PUBLISHED = {  # SHA-256 of the files in facenet-pytorch 2.6.0
    "pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}
INSIDE = "facenet_pytorch/data"  # folder of the files in the wheel
MOST_BYTES = 16 << 20  # of one file; the largest has 1.6 MB
HOW = "Get the wheel with `pip download --no-deps facenet-pytorch==2.6.0` and give its path"


def read_weights(path: str) -> dict[str, bytes]:
    """Return the bytes of pnet.pt, rnet.pt and onet.pt, from a wheel (a zip file) or a folder. Raises RecipeError."""
    place = Path(at_home(path))
    with errors_as(
        lambda error: RecipeError(f"{place} cannot be read: {one_line(error)}. {HOW}"), passes=(RecipeError, MemoryError)
    ):
        if place.is_dir():
            return {name: _of_folder(place / name) for name in PUBLISHED}
        if not place.is_file():
            raise RecipeError(f"there is no file or folder {place}. {HOW}")
        with zipfile.ZipFile(place) as wheel:
            return {name: _of_wheel(wheel, f"{INSIDE}/{name}", place) for name in PUBLISHED}
    raise AssertionError("unreachable")


def _of_folder(file: Path) -> bytes:
    if not file.is_file():
        raise RecipeError(f"there is no {file}. {HOW}")
    _check_size(file.stat().st_size, str(file))
    return file.read_bytes()


def _of_wheel(wheel: zipfile.ZipFile, name: str, place: Path) -> bytes:
    if name not in wheel.namelist():
        raise RecipeError(f"{place} holds no {name}. {HOW}")
    _check_size(wheel.getinfo(name).file_size, f"{place}: {name}")
    with wheel.open(name) as file:
        return file.read(MOST_BYTES)


def _check_size(size: int, where: str) -> None:
    if size > MOST_BYTES:
        raise RecipeError(f"{where} has {size:,} bytes, but these weights have less than {MOST_BYTES:,}. {HOW}")


def is_published(weights: dict[str, bytes]) -> bool:
    """Return whether all three files are those of facenet-pytorch 2.6.0."""
    return all(hashlib.sha256(weights[name]).hexdigest() == known for name, known in PUBLISHED.items())


def weights_digest(weights: dict[str, bytes]) -> str:
    """Return a hash of the three files."""
    return hashlib.sha256(b"".join(hashlib.sha256(weights[name]).digest() for name in PUBLISHED)).hexdigest()[:16]
