"""Messages between a worker and its PDF process: a JSON object and byte strings. Neither side runs code from a message."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import IO, Any

_HEAD = struct.Struct("<IQ")  # length of the JSON, and number of byte strings
_SIZE = struct.Struct("<Q")


def send(stream: IO[bytes], head: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Write a message and flush the stream."""
    text = json.dumps(head, ensure_ascii=True).encode()
    stream.write(_HEAD.pack(len(text), len(blobs)) + text)
    for blob in blobs:
        stream.write(_SIZE.pack(len(blob)))
        stream.write(blob)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[bytes]] | None:
    """Return the next message, or None if the stream ends before the message is complete."""
    start = stream.read(_HEAD.size)
    if len(start) < _HEAD.size:
        return None
    length, count = _HEAD.unpack(start)
    text = stream.read(length)
    blobs = []
    for _ in range(count):
        size = stream.read(_SIZE.size)
        if len(size) < _SIZE.size:
            return None
        blobs.append(stream.read(_SIZE.unpack(size)[0]))
        if len(blobs[-1]) < _SIZE.unpack(size)[0]:
            return None
    return (json.loads(text), blobs) if len(text) == length else None
