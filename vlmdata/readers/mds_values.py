"""Decode the values of MDS columns. Pickle is never opened.

The encodings are those of mosaicml-streaming 0.13.0, found from the files that it writes. Numbers are little-endian.
"""

from __future__ import annotations

import io
import json
import math
import struct
from typing import Any

import numpy as np
from PIL import Image

from vlmdata.images.budget import FIXED_BYTES, MAX_MEMORY_MB, check_memory
from vlmdata.images.facts import ImageError
from vlmdata.loader.index.tar import Member, Read
from vlmdata.readers.source_images import image_given, in_place, inline, refused
from vlmdata.readers.tar_samples import MAX_IMAGE, MAX_JSON, BadSample, member_bytes
from vlmdata.untrusted import one_line

ARRAY = "ndarray"
NUMBERS = {f"{kind}{bits}": f"<{kind[0]}{bits // 8}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)}
NUMBERS |= {f"float{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)}
_SCALARS = {**NUMBERS, "int": "<i8"}
_WORDS = {"str_int": int, "str_float": float, "str_decimal": str}
TEXTS = frozenset(["str", "json", *_WORDS])
FILES = frozenset(["bytes", "jpeg", "png"])  # the bytes of an image file
LISTS = {"list[jpeg]": 4, "list[png]": 4, "list[pil]": 4, "jpeg_array": 0, "jpegarray": 0}  # bytes before the number of images
IMAGES = frozenset([*FILES, *LISTS, "pil"])
_TYPES = dict(
    zip(
        (8, 9, 16, 17, 18, 32, 33, 34, 64, 65, 66),
        ("uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "uint64", "int64", "float64"),
        strict=True,
    )
)
_MODES = {"1": 1 / 8, "L": 1, "P": 1, "LA": 2, "I;16": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "YCbCr": 3}  # bytes per pixel
_MAX_LIST = 100_000  # images in one value
_PNG_BYTES = 12  # per pixel, to write a PNG


def is_known(encoding: str) -> bool:
    """Say whether values of this encoding can be decoded."""
    return encoding in TEXTS or encoding in IMAGES or encoding in _SCALARS or encoding.partition(":")[0] == ARRAY


def holds_values(encoding: str) -> bool:
    """Say whether a sample's JSON can hold values of this encoding: texts, numbers, JSON and arrays, but no bytes."""
    return is_known(encoding) and encoding not in IMAGES


def may_hold_images(encoding: str) -> bool:
    """Say whether a column of this encoding can hold images, their pixels or their addresses."""
    return encoding in IMAGES or encoding == "str" or encoding.partition(":")[0] == ARRAY


def size_of(encoding: str) -> int | None:
    """Return the size of each value in bytes, None if it varies, or -1 for an unknown encoding."""
    if encoding in _SCALARS:
        return np.dtype(_SCALARS[encoding]).itemsize
    if encoding in TEXTS or encoding in IMAGES:
        return None
    name, _, rest = encoding.partition(":")
    if name != ARRAY:
        return -1
    try:
        kind, shape = _static(rest)
    except ValueError:
        return -1
    return None if kind is None or shape is None else np.dtype(NUMBERS[kind]).itemsize * math.prod(shape)


def value_in(member: Member, encoding: str, read: Read) -> Any:
    """Return the value of a column that is not media. Raises BadSample if it is too large or cannot be decoded."""
    data = member_bytes(read, member, MAX_JSON)
    try:
        return _value(data, encoding)
    except UnicodeDecodeError as error:
        raise BadSample(f"its column {member.name!r:.60} is not UTF-8: {error}", "bad_encoding") from None
    except (ValueError, RecursionError, OverflowError, KeyError, IndexError, struct.error) as error:
        raise BadSample(f"its column {member.name!r:.60} is not {encoding:.60}: {one_line(error)[:200]}") from None


def _value(data: bytes, encoding: str) -> Any:
    if encoding in _SCALARS:
        return np.frombuffer(data, _SCALARS[encoding])[0].item()
    if encoding.partition(":")[0] == ARRAY:
        return array_of(data, encoding).tolist()
    text = data.decode()
    if encoding == "json":
        return json.loads(text)
    return _WORDS.get(encoding, str)(text)


def _static(rest: str) -> tuple[str | None, tuple[int, ...] | None]:
    """Return the type and shape in an encoding such as `ndarray:uint8:2,3`. Raises ValueError if they are not valid."""
    parts = rest.split(":") if rest else []
    kind = parts[0] if parts else None
    shape = tuple(map(int, parts[1].split(","))) if len(parts) > 1 else None
    if len(parts) > 2 or (kind is not None and kind not in NUMBERS) or any(one < 1 for one in shape or ()):
        raise ValueError("unknown type or shape of an array")
    return kind, shape


def array_of(data: bytes, encoding: str) -> np.ndarray:
    """Return an array. Its type and its shape are in the encoding, or come before the numbers."""
    kind, shape = _static(encoding.partition(":")[2])
    at = 0
    if kind is None:
        kind, at = _TYPES[data[0]], 1
    if shape is None:
        count, width = data[at] >> 2, 1 << (data[at] & 3)
        shape = tuple(np.frombuffer(data[at + 1 : at + 1 + count * width], f"<u{width}").tolist())
        if len(shape) < count:
            raise ValueError("the shape is cut off")
        at += 1 + count * width
    return np.frombuffer(data[at:], NUMBERS[kind]).reshape(shape)


def images_in(member: Member, encoding: str, blob: str | None, read: Read) -> list[dict[str, Any]]:
    """Return the images of a column as fields of IMAGE, [] for none. `blob` is as for `tar_samples.RowOf`.

    Raw pixels become PNG, which loses nothing; image files are not changed. An address in a text is left to `download`.
    Raises BadSample for a list that is damaged.
    """
    if encoding == "str":
        return [image_given(value_in(member, encoding, read), lambda name: {"drop": "source", "reason": "not_a_path"})]
    if encoding.partition(":")[0] == ARRAY:
        return [_pixels_of(member, encoding, read)]
    members = list_in(member, encoding, read) if encoding in LISTS else [member] if member.size else []
    of = _raw if encoding in ("pil", "list[pil]") else _file
    return [of(one, blob, read) for one in members]


def _file(member: Member, blob: str | None, read: Read) -> dict[str, Any]:
    data = member_bytes(read, member, MAX_IMAGE)
    return inline(data) if blob is None else in_place(blob, member.offset, data)


def list_in(member: Member, encoding: str, read: Read) -> list[Member]:
    """Return the images of a list. The number of images and their sizes come first, then their bytes.

    Raises BadSample if the sizes do not fit the value.
    """
    skipped = LISTS[encoding]
    count = int.from_bytes(read(member.offset + skipped, 4), "little") if member.size >= skipped + 4 else 0
    head = skipped + 4 + 4 * count
    if head > member.size or count > _MAX_LIST:
        raise BadSample(f"its column {member.name!r:.60} states {count} images in {member.size} bytes")
    offset, found = member.offset + head, []
    for size in struct.unpack(f"<{count}I", read(offset - 4 * count, 4 * count)):
        found.append(Member(member.name, member.header, offset, size, offset + size))
        offset += size
    if offset != member.end:
        raise BadSample(f"the images in its column {member.name!r:.60} do not fill its {member.size} bytes")
    return found


def _raw(member: Member, blob: str | None, read: Read) -> dict[str, Any]:
    """Return raw pixels as PNG: width, height, length of the mode, mode, pixels."""
    try:
        check_memory(FIXED_BYTES + 4 * member.size, MAX_MEMORY_MB, "the image")
        data = member_bytes(read, member, MAX_IMAGE)
        width, height, length = struct.unpack("<3I", data[:12])
        mode = data[12 : 12 + length].decode("latin-1")
        row = math.ceil(width * _MODES[mode])
        if length > 8 or len(data) != 12 + length + row * height:
            return {"drop": "source", "reason": "truncated"}
        if not row * height:
            return {"drop": "source", "reason": "empty"}
        return _png(Image.frombytes(mode, (width, height), data[12 + length :]))
    except struct.error:
        return {"drop": "source", "reason": "truncated"}
    except KeyError:
        return {"drop": "source", "reason": "unsupported_format"}
    except ImageError as error:
        return refused(error)


def _pixels_of(member: Member, encoding: str, read: Read) -> dict[str, Any]:
    """Return an array of bytes as PNG. Its shape is (height, width), or has 1, 3 or 4 channels at the end."""
    try:
        check_memory(FIXED_BYTES + 4 * member.size, MAX_MEMORY_MB, "the image")
        pixels = array_of(member_bytes(read, member, MAX_IMAGE), encoding)
    except ImageError as error:
        return refused(error)
    except (ValueError, KeyError, IndexError, OverflowError):
        return {"drop": "source", "reason": "corrupt"}
    pixels = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        return {"drop": "source", "reason": "unsupported_format"}
    return _png(Image.fromarray(np.ascontiguousarray(pixels))) if pixels.size else {"drop": "source", "reason": "empty"}


def _png(image: Image.Image) -> dict[str, Any]:
    try:
        check_memory(FIXED_BYTES + _PNG_BYTES * image.width * image.height, MAX_MEMORY_MB, "writing the image")
    except ImageError as error:
        return refused(error)
    if image.mode in ("P", "CMYK", "YCbCr"):
        image = image.convert("RGB")
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=6)
    return inline(out.getvalue())
