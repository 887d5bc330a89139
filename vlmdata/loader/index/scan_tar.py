"""Scans a tar for the rows of its index. Separate processes that run `serve` scan many tars in parallel."""

import io
import json
import os
import struct
import sys
from contextlib import ExitStack, suppress

import pyarrow as pa

from vlmdata.images.formats import IMAGE_EXTENSIONS, TEXT_EXTENSIONS
from vlmdata.loader.index.grouping import SampleMembers, contents
from vlmdata.loader.index.index_file import IndexRow, index_table
from vlmdata.loader.index.tar import Read, TarDamage, members
from vlmdata.untrusted import Failed, errors_as


def scan(address: str, shard: str, image_sizes: bool) -> tuple[pa.Table, str | None]:
    """Return (index rows, None) for an intact tar, and (index rows, description of the damage) for a damaged tar.

    `address` is the path or address of the tar, and `shard` is its name in the rows. With `image_sizes`, the rows hold the size
    of each image. The rows of a damaged tar are the intact samples around the damage. Links are skipped, as in webdataset.
    Raises OSError if the tar cannot be opened.
    """
    with ExitStack() as stack:
        read, length = _open(address, stack)
        if read(0, 2) == b"\x1f\x8b":
            compressed = TarDamage(
                0, length, "the tar is compressed, so its samples cannot be read one by one. Decompress it with gunzip"
            )
            return index_table([]), _first_damage(address, [compressed])
        found = contents(list(members(read, length)))
        rows = [_row(sample, shard, read, image_sizes) for sample in found.samples]
    return index_table(rows), _first_damage(address, found.damages)


def _first_damage(address: str, damages: list[TarDamage]) -> str | None:
    if not damages:
        return None
    more = f" (and at {len(damages) - 1} more places)" if len(damages) > 1 else ""
    return f"{address}, byte {damages[0].offset}: {damages[0].why}{more}"


def _open(address: str, stack: ExitStack) -> tuple[Read, int]:
    if "://" in address:
        import fsspec

        # readahead makes requests of 4 MB: it reads through small members and skips large ones
        files, path = fsspec.core.url_to_fs(address)
        file = stack.enter_context(files.open(path, "rb", cache_type="readahead", block_size=1 << 22))

        def read_remote(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        return read_remote, file.size
    number = os.open(address, os.O_RDONLY)
    stack.callback(os.close, number)
    return lambda offset, size: os.pread(number, size, offset), os.fstat(number).st_size


def _row(sample: SampleMembers, shard: str, read: Read, image_sizes: bool) -> IndexRow:
    parts = [(extension, member.offset, member.size) for extension, member in sample.members]
    start = min(member.header for _, member in sample.members)
    end = max(member.end for _, member in sample.members)
    sizes = {extension: size for extension, _, size in parts}
    text = next((sizes[extension] for extension in TEXT_EXTENSIONS if extension in sizes), 0)
    images = None
    if image_sizes:
        pictures = [part for part in parts if part[0].rpartition(".")[2] in IMAGE_EXTENSIONS]
        images = [image_size(read, offset, size) for _, offset, size in pictures]
    return IndexRow(sample.key, shard, start, end - start, parts, min(text, (1 << 31) - 1), images)


def image_size(read: Read, offset: int, size: int) -> tuple[int, int]:
    """Return (width, height) as the image's header states them, without EXIF rotation.

    Return (0, 0) if the header cannot be read.
    """
    from PIL import Image

    for amount in sorted({min(size, 1 << 16), size}):  # a large colour profile can push the size past the first 64 KB
        with suppress(Failed), errors_as(Failed), Image.open(io.BytesIO(read(offset, amount))) as image:
            return image.size
    return 0, 0


def serve() -> None:
    """Scan the tars that stdin requests, and write the answers to stdout.

    A request is a line with the arguments of `scan` as a JSON list. An answer has two 64-bit lengths, a table as an Arrow
    stream, and the JSON list [damage, message of an OSError], in which both items may be null. The lengths are the sizes of the
    table and of the list in bytes.
    """
    answers = sys.stdout.buffer
    for line in sys.stdin:
        try:
            table, damage = scan(*json.loads(line))
            failure = None
        except OSError as error:
            table, damage, failure = index_table([]), None, str(error)
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        note = json.dumps([damage, failure]).encode()
        answers.write(struct.pack("<QQ", sink.tell(), len(note)) + sink.getvalue() + note)
        answers.flush()
