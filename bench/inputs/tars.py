"""Write tars like those of a dataset, and make samples for them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg


def write_tar(path: Path, samples: Iterable[Mapping[str, bytes | str]]) -> None:
    """Write samples to one tar. Each sample maps extensions to bytes and has its key under `__key__`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for sample in samples:
            for name in sorted(n for n in sample if n != "__key__"):
                data = sample[name]
                assert isinstance(data, bytes)
                info = tarfile.TarInfo(f"{sample['__key__']}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def jpeg(pixels: np.ndarray) -> bytes:
    """Return uint8 (H, W, 3) pixels as a JPEG file."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90)


def document_sample(key: str, positions: Sequence[str | bytes], roles: Sequence[str] | None = None) -> dict[str, Any]:
    """Return a page, or a conversation if roles are given, in the layout of document shards."""
    sample: dict[str, Any] = {"__key__": key}
    texts: list[str | None] = []
    images: list[str | None] = []
    metadata: list[dict[str, str] | None] = []
    for position in positions:
        is_image = isinstance(position, bytes)
        name = f"{sum(i is not None for i in images)}.jpg"
        texts.append(None if isinstance(position, bytes) else position)
        images.append(f"http://127.0.0.1/{key}/{name}" if is_image else None)
        metadata.append({"file": f"{key}.{name}"} if is_image else None)
        if isinstance(position, bytes):
            sample[name] = position
    facts: dict[str, Any] = {"texts": texts, "images": images, "metadata": metadata}
    if roles is not None:
        facts["roles"] = list(roles)
    sample["json"] = json.dumps(facts).encode()
    return sample
