"""Small pictures for tests of sources."""

import io

from PIL import Image


def picture(width: int = 8, height: int = 6, kind: str = "PNG") -> bytes:
    """Return an image whose colour depends on its size."""
    out = io.BytesIO()
    Image.new("RGB", (width, height), (width % 256, height % 256, 0)).save(out, kind)
    return out.getvalue()
