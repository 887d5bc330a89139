"""Where the members of a tar lie, from its headers alone: no data is read.

Understands ustar, GNU long names and base-256 sizes, pax headers (also global ones), old tars without magic, and files
that end without their two zero blocks. The rule of grouping is webdataset's: the key ends at the first dot of the file's
name, folders belong to the key, extensions are lower case.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

BLOCK = 512
_ZERO = bytes(BLOCK)
_READ = 4096  # one read sees the headers of several small members


class TarDamage(ValueError):
    """A tar that cannot be read from some offset on. `.offset` is in bytes from its start."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"at byte {offset}: {why}")
        self.offset = offset
        self.why = why


class Member(NamedTuple):
    """A regular file of a tar. `header` is where its first header starts (long names come before), `end` its padding's end."""

    name: str
    header: int
    offset: int
    size: int
    end: int


class TarSample(NamedTuple):
    """Members that share a key: (extension, member) in the tar's order. They need not be neighbours."""

    key: str
    members: list[tuple[str, Member]]


def members(read: Callable[[int, int], bytes], length: int) -> Iterator[Member]:
    """Give the regular files of a tar of `length` bytes; `read(offset, size)` gives its bytes. Raises TarDamage."""
    position = header_start = 0
    buffer, buffer_start = b"", 0
    pax: dict[bytes, bytes] = {}
    pax_global: dict[bytes, bytes] = {}
    while position < length:
        skip = position - buffer_start
        header = buffer[skip : skip + BLOCK]
        if len(header) < BLOCK:
            buffer, buffer_start = read(position, _READ), position
            header = buffer[:BLOCK]
        if len(header) < BLOCK:
            raise TarDamage(position, f"the file ends inside a header ({len(header)} of {BLOCK} bytes)")
        if header == _ZERO:
            return
        size = _size(header, position)
        kind = header[156:157]
        data = position + BLOCK
        if kind in b"LKxg" and kind != b"":
            if data + size > length:
                raise TarDamage(position, "the file ends inside a long header")
            try:
                _read_extra(kind, read(data, size), pax, pax_global)
            except ValueError:
                raise TarDamage(position, "a pax header whose records have no length") from None
            position = data + -(-size // BLOCK) * BLOCK
            continue
        merged = {**pax_global, **pax} if pax or pax_global else pax
        if b"size" in merged:
            if not merged[b"size"].isdigit():
                raise TarDamage(position, "a pax header whose size is no number")
            size = int(merged[b"size"])
        if kind == b"S" or any(name.startswith(b"GNU.sparse") for name in merged):
            raise TarDamage(position, "sparse members are not supported: write the tar without --sparse")
        end = data + -(-size // BLOCK) * BLOCK if kind not in (b"1", b"2", b"3", b"4", b"5", b"6") else data
        name = _name(header, merged)
        if kind in (b"0", b"\0", b"7") and not name.endswith("/"):
            if data + size > length:
                raise TarDamage(header_start, f"member {name!r} has {size} bytes, the file ends {data + size - length} short")
            yield Member(name, header_start, data, size, end)
        pax = {}
        position = header_start = end


def samples(found: Iterable[Member]) -> list[TarSample]:
    """Group members by key, in the order in which keys first appear.

    A member joins the latest sample of its key, however far back, unless that one already has its extension: then it
    starts a new sample, so that repeated keys stay separate. Names without an extension, hidden files and webdataset's
    own `__meta__` files are no samples.
    """
    result: list[TarSample] = []
    latest: dict[str, tuple[TarSample, set[str]]] = {}
    for member in found:
        name = member.name
        start = name.rfind("/") + 1
        dot = name.find(".", start)
        if dot <= start or (start == 0 and name.startswith("__") and name.endswith("__")):
            continue
        key, extension = name[:dot], name[dot + 1 :].lower()
        sample, seen = latest.get(key, (None, set()))
        if sample is None or extension in seen:
            sample, seen = latest[key] = TarSample(key, []), set()
            result.append(sample)
        sample.members.append((extension, member))
        seen.add(extension)
    return result


def _size(header: bytes, position: int) -> int:
    """The size field: octal text, or base 256 where it does not fit. A wrong header is found by magic, then checksum."""
    field = header[124:136]
    try:
        if header[257:262] != b"ustar":
            _check(header)
        if field[0] & 0x80:
            return int.from_bytes(field[1:], "big")
        size = int(field.rstrip(b" \0") or b"0", 8)
        if size < 0:
            raise ValueError("negative")
        return size
    except ValueError:
        raise TarDamage(position, "no tar header here (wrong checksum or size)") from None


def _check(header: bytes) -> None:
    stated = int(header[148:156].strip(b" \0") or b"0", 8)
    if stated != sum(header) - sum(header[148:156]) + 8 * 32:
        raise ValueError("checksum")


def _read_extra(kind: bytes, data: bytes, pax: dict[bytes, bytes], pax_global: dict[bytes, bytes]) -> None:
    if kind == b"L":
        pax[b"path"] = data.rstrip(b"\0")
    if kind in b"xg":
        target = pax if kind == b"x" else pax_global
        while data[:1].isdigit():
            size, _, _ = data.partition(b" ")
            length = int(size)
            if length <= len(size) + 1:
                raise ValueError("a record shorter than its own length")  # it would be read for ever
            key, _, value = data[len(size) + 1 : length - 1].partition(b"=")
            target[key] = value
            data = data[length:]


def _name(header: bytes, pax: dict[bytes, bytes]) -> str:
    raw = pax.get(b"path")
    if raw is None:
        raw = header[:100].split(b"\0", 1)[0]
        if header[257:263] == b"ustar\0" and header[345] != 0:
            raw = header[345:500].split(b"\0", 1)[0] + b"/" + raw
    return raw.decode("utf-8", "backslashreplace")  # Arrow strings cannot hold the bytes tarfile would smuggle through
