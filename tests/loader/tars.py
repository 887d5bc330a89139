"""Small tars for the loader's tests, written with tarfile or built by hand."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample_files(key: str, members: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    return [(f"{key}.{name}", data) for name, data in members.items()]


def caption_set(folder: Path, shards: Iterable[int], size: int = 50) -> Path:
    """Write one tar for each count in `shards`: samples with `s-i.jpg` (each different), `.txt` (the key) and `.json`."""
    for shard, count in enumerate(shards):
        files = []
        for number in range(count):
            key = f"{shard}-{number}"
            facts = json.dumps({"key": key}).encode()
            files += sample_files(key, {"jpg": key.encode() * (1 + size // 7), "json": facts, "txt": key.encode()})
        write_tar(folder / f"{shard:05}.tar", files)
    return folder


def keys_of(batches: Iterable) -> list[str]:
    return [sample["__key__"] for batch in batches for sample in (batch if isinstance(batch, list) else [batch])]


def flat(steps: Iterable[Iterable]) -> list:
    return [one for step in steps for one in step]


def contents(samples: Iterable) -> list[tuple]:
    """Return the key, the image and the text of each sample of a `caption_set`."""
    return [(sample["__key__"], sample["jpg"], sample["txt"]) for sample in samples]


END = bytes(1024)


def header(name: bytes, size: int, kind: bytes = b"0", target: bytes = b"", size_field: bytes = b"") -> bytes:
    """Return a tar header that tarfile would not write, built by hand."""
    head = bytearray(512)
    head[: len(name)], head[157 : 157 + len(target)] = name, target
    head[124:136], head[156:157] = size_field or b"%011o\0" % size, kind
    head[257:265], head[148:156] = b"ustar\x0000", b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def file(name: bytes, data: bytes, kind: bytes = b"0") -> bytes:
    return header(name, len(data), kind) + data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """Return a record of a pax header, which begins with its length."""
    length = len(key) + len(value) + 3
    while len(line := b"%d %s=%s\n" % (length, key, value)) != length:
        length = len(line)
    return line


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return file(b"PaxHeader", records, kind)
