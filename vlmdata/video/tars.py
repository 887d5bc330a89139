"""Reads the videos in a tar. A video of a plain tar is decoded where it lies; one of a compressed tar is copied to a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from tempfile import NamedTemporaryFile
from typing import Any

from vlmdata.loader.index.grouping import SampleMembers
from vlmdata.loader.index.tar import Member, Read
from vlmdata.readers.plain_rows import bad_record, place
from vlmdata.readers.strings import clean
from vlmdata.readers.tar_samples import BadSample, member_bytes, read_tar
from vlmdata.video.beside import Beside
from vlmdata.video.beside import Read as ReadPart
from vlmdata.video.containers import ENDINGS
from vlmdata.video.decoder import Decoder, Place
from vlmdata.video.rows import About, dropped, video_rows
from vlmdata.video.settings import VideoError

_COPY = 1 << 20  # bytes
_BesideOf = Callable[[Mapping[str, ReadPart]], Beside]


def tar_videos(path: str, name: str, decoder: Decoder, beside_of: _BesideOf, clip_s: float | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of the videos in a tar, then a dropped row for each damaged range and each link to nothing.

    A sample is what webdataset's rule groups: `a.mp4` with `a.txt`, `a.json` and `a.en.srt`. A sample of several videos gives
    the rows of each. A sample without a video is dropped as `no_video`.
    """
    name = clean(name)
    with ExitStack() as stack:
        found, read, is_plain = read_tar(path, stack)
        for sample in found.samples:
            yield from _sample_rows(sample, path if is_plain else None, name, read, decoder, beside_of, clip_s)
        for damage in sorted(found.damages):
            yield bad_record(name, damage.why, byte=damage.offset)
        for link in found.links:
            yield bad_record(name, f"{clean(link.name)!r} is a link to a file that is not in the tar", byte=link.header)


def _sample_rows(
    sample: SampleMembers, path: str | None, name: str, read: Read, decoder: Decoder, beside_of: _BesideOf, clip_s: float | None
) -> Iterator[dict[str, Any]]:
    videos = [(ending, member) for ending, member in sample.members if f".{ending}".endswith(ENDINGS)]
    where = place(name, byte=sample.members[0][1].header)
    about = About(clean(f"{name}/{sample.key}"), where, facts={"source_key": clean(sample.key)})
    if not videos:
        yield dropped(about, VideoError("no_video", f"sample {clean(sample.key)!r} has no video"))
    for number, (ending, member) in enumerate(videos):
        own_id = f"{about.id}.{clean(ending)}" if number else about.id
        try:
            captions, facts, said = beside_of(_parts(sample, ending, read))
            facts = {**facts, "source_key": clean(sample.key)}
            about = About(own_id, place(name, byte=member.header), None, captions, facts, said)
            with _placed(path, member, read) as at:
                yield from video_rows(decoder, at, about, clip_s)
        except VideoError as error:
            yield dropped(about, error)


def _parts(sample: SampleMembers, video: str, read: Read) -> dict[str, ReadPart]:
    """Return readers of the members beside a video, by their endings. For `x.05.mp4` those with `05.` belong to the video."""
    stem = video.rpartition(".")[0]
    before = f"{stem}." if stem else ""
    found = {}
    for ending, member in sample.members:
        if ending.startswith(before):
            found[ending.removeprefix(before)] = _reader(member, read)
    return found


def _reader(member: Member, read: Read) -> ReadPart:
    def part(most: int) -> bytes:
        try:
            return member_bytes(read, member, most)
        except BadSample as error:
            raise VideoError(error.reason, str(error)) from None

    return part


@contextmanager
def _placed(path: str | None, member: Member, read: Read) -> Iterator[Place]:
    """Yield where the decoder finds a member. It is copied to a temporary file if `path` is None, as in a compressed tar."""
    if path is not None:
        yield Place(path, member.offset, member.size)
        return
    with NamedTemporaryFile(prefix="vlmdata-", suffix=".video") as file:
        for start in range(0, member.size, _COPY):
            file.write(read(member.offset + start, min(_COPY, member.size - start)))
        file.flush()
        yield Place(file.name)
