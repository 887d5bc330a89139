"""Read images in the cells of a table. A cell holds bytes or base64 text. OFA and Chinese-CLIP publish images as base64."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vlmdata.readers.source_images import from_base64, inline

_BASE64 = re.compile(rb"[A-Za-z0-9+/_\s-]+={0,2}\s*")
BEGINNING = 256  # first bytes to check: in an image file, some are not in base64's alphabet


def image_in(value: Any) -> dict[str, Any]:
    """Return the image in a table's cell as fields of IMAGE. If it cannot be used, `drop` and `reason` are set.

    A cell holds bytes or base64 text, directly, as the only item of a list, or under the key `bytes` of a mapping. Base64 may
    use either alphabet, may lack padding, and may follow `data:image/jpeg;base64,`. For any other cell, the reason is
    `no_image`.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping):  # as `datasets` stores an image
        value = value.get("bytes")
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    if not isinstance(data, bytes) or not data.strip():
        return {"drop": "source", "reason": "no_image"}
    data = data.strip() if isinstance(value, str) else data
    if data[:5].lower() == b"data:":
        data = data.partition(b",")[2]
    elif not isinstance(value, str) and not _BASE64.fullmatch(data[:BEGINNING]):
        return inline(data)
    return from_base64(data)
