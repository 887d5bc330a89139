"""Describe the images that a source holds as fields of IMAGE: position of the bytes, facts in the header, hash."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from vlmdata.images.facts import ImageError
from vlmdata.images.header import read_header
from vlmdata.readers.find_files import is_remote
from vlmdata.readers.open_file import raw_file
from vlmdata.readers.strings import clean
from vlmdata.safe_path import Refused, safe_path

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".jfif", ".jpe", ".jif", ".jfi", ".apng")
RAW_ENDINGS = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw", ".kdc", ".3fr", ".raw")
OTHER_ENDINGS = (  # image formats that are not decoded
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".svg", ".ico", ".psd", ".qoi", ".hdr", ".exr", ".tga", ".pnm"),
    *(".ppm", ".pgm", ".pbm", ".heics", ".avifs", ".avci", ".jxr", ".wdp", ".jpx", ".jpf", ".jpm", ".j2c", ".svgz"),
    *(".eps", ".pcx", ".xcf", ".dds", *RAW_ENDINGS),
)
ADDRESSES = ("url", "URL", "image_url", "image_urls", "urls")  # fields with the origin of images
LARGEST = 256 << 20  # largest image to read, in bytes
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_IN_BASE64 = re.compile(  # base64 of JPEG, PNG, WebP, GIF, TIFF or AVIF; a long file name would have a dot
    r"(?:/9j/|iVBORw0KGgo|UklGR|R0lGOD|SUkqA|TU0AK|AAAA[A-Za-z0-9]{2}Z0eX)[A-Za-z0-9+/_\s-]{85,}={0,2}\s*"
)
HEADER = 1 << 16  # bytes that hold every header except one with a large colour profile


def facts(data: bytes, *, whole: bool = True) -> dict[str, Any]:
    """Return an image's format and sizes as fields of IMAGE, or the reason why `data` is not an image.

    Sizes are those of the upright image, in pixels. If `whole`, `data` is the whole file, and the fields include its SHA-256.
    """
    try:
        header = read_header(data)
    except ImageError as error:
        return refused(error)
    width, height = header.upright_size
    found = {"format": header.format, "width": width, "height": height, "original_width": width, "original_height": height}
    found["original_format"] = header.format
    return {**found, "sha256": hashlib.sha256(data).hexdigest()} if whole else found


def refused(error: ImageError) -> dict[str, Any]:
    """Return the fields of an image that its source drops because of this error."""
    return {"drop": "source", "reason": error.reason, "value": error.value, "threshold": error.threshold}


def in_place(blob: str, offset: int, data: bytes) -> dict[str, Any]:
    """Return an image as fields of IMAGE. Its bytes, `data`, stay at `offset` in the source's file `blob`."""
    return {"blob": blob, "offset": offset, "size": len(data), **facts(data)}


def inline(data: bytes) -> dict[str, Any]:
    """Return an image as fields of IMAGE, with its bytes."""
    return {"data": data, **facts(data)}


def from_base64(text: bytes) -> dict[str, Any]:
    """Return an image in base64 as fields of IMAGE, with its bytes.

    If the base64 is invalid, `drop` and the reason `bad_base64` are set. White space, both alphabets of base64 and missing
    padding are accepted.
    """
    text = b"".join(text.split()).translate(_URL_SAFE).rstrip(b"=")
    try:
        return inline(base64.b64decode(text + b"=" * (-len(text) % 4), validate=True))
    except binascii.Error:
        return _rejected("bad_base64")


def image_named(where: object, folder: str) -> dict[str, Any]:
    """Return the image that a value holds or names: bytes, an http(s) address, base64, a data: URL, or a file in `folder`.

    `where` is bytes, a text, or a mapping with `bytes`, `path` or `url`, as `datasets` and others store an image. An image with
    bytes and an address keeps both. The step `download` fetches addresses. If the image cannot be used, `drop` and `reason`
    are set. Possible reasons are `no_image` (no image is named), `bad_base64`, and the reasons of `facts` and `safe_path`.
    """
    return image_given(where, lambda name: _file_within(name, folder))


def image_given(where: object, file_of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Return the image that a value holds or names, as `image_named` does, but open no file.

    If the value names a file, the result is that of `file_of` for this name.
    """
    if isinstance(where, Mapping):
        address = next((found for name in ("url", "path") if (found := web_address(where.get(name)))), None)
        inside = [where.get(name) for name in ("bytes", "path", "url")]
        image = image_given(next((one for one in inside if one and isinstance(one, bytes | str)), None), file_of)
        if address is None:
            return image
        return {"url": address} if image.get("reason") in ("no_image", "no_file") else {**image, "url": address}
    if isinstance(where, bytes):
        return inline(where)
    if not isinstance(where, str) or not where.strip():
        return _rejected("no_image")
    if address := web_address(where):
        return {"url": address}
    where = clean(where.strip())
    scheme = where[:8].lower()
    if scheme.startswith("data:"):
        return from_base64(where.partition(",")[2].encode())
    if _IN_BASE64.fullmatch(where):
        return from_base64(where.encode())
    return file_of(unquote(where[7:]) if scheme.startswith("file://") else where)


def _file_within(name: str, folder: str) -> dict[str, Any]:
    """Return the image file `name` of a folder. If it cannot be used, `problem` names it, without the folder's own path."""
    try:
        found = file_in_place(safe_path(name, folder))
    except Refused as error:
        found = _rejected(str(error))
    missing = ", and the folder of the images has no such file" if found.get("reason") == "no_file" else ""
    return {**found, "problem": f"{name_in_source(name)}{missing}"} if found.get("reason") else found


def name_in_source(where: object) -> str | None:
    """Return a sentence for the ledger that states the path or address of a row's image, or None if there is neither."""
    where = next((where[name] for name in ("path", "url") if where.get(name)), None) if isinstance(where, Mapping) else where
    if not isinstance(where, str) or not where.strip() or where[:5].lower() == "data:" or _IN_BASE64.match(where):
        return None
    return f"the row names the image {clean(where)[:300]!r}"


def in_text(value: object) -> str | None:
    """Return a text, or UTF-8 bytes as text, or None for any other value. Some tables hold addresses as bytes."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str) else None


def web_address(value: object) -> str | None:
    """Return an http(s) address without white space around it, or None for any other value."""
    text = clean((in_text(value) or "").strip())
    return text if text[:8].lower().startswith(("http://", "https://")) else None


def keep_addresses(images: list[dict[str, Any]], record: Mapping[str, Any]) -> set[str]:
    """Set the addresses of a record's images from one of its fields.

    Return a set with the name of this field, or an empty set if no address was set. The field holds an address for a single
    image, or a list with one value for each image. If any image already has an address, no address is set.
    """
    for name in ADDRESSES:
        value = record.get(name)
        values = value if isinstance(value, list) else [value]
        found = [web_address(one) for one in values]
        if len(found) == len(images) and any(found) and not any(image.get("url") for image in images):
            for image, address in zip(images, found, strict=True):
                image["url"] = address
            return {name}
    return set()


def _rejected(reason: str) -> dict[str, Any]:
    return {"drop": "source", "reason": reason}


def file_in_place(path: str) -> dict[str, Any]:
    """Read only the header of an image file, and return the image as fields of IMAGE.

    The step `resize` reads the rest and computes the hash. If the file cannot be used, `drop` and `reason` are set.
    """
    try:
        with raw_file(path) as file:
            size = file.size if is_remote(path) else os.fstat(file.fileno()).st_size
            found = facts(file.read(HEADER), whole=False)
            if found.get("reason") in ("truncated", "corrupt") and size > HEADER:  # a TIFF's profile may come later
                if size > LARGEST:
                    return _rejected("too_large")
                file.seek(0)
                found = facts(file.read(), whole=False)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):  # ValueError: a null byte in the path
        return _rejected("no_file")
    except OSError:
        return _rejected("unreadable_file")
    return {"blob": path if is_remote(path) else os.path.abspath(path), "offset": 0, "size": size, **found}
