"""Opens a video by its first bytes. The demuxer gets one file object, and can open no other file and no address."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from vlmdata.extras import required
from vlmdata.video.settings import VideoError

ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg"),
    *(".vob", ".flv", ".ogv", ".wmv", ".asf"),
)
HEAD = 4096  # bytes that show the format
_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof"}  # first boxes of MP4 and MOV
_MAGIC = {
    b"\x1a\x45\xdf\xa3": "matroska", b"\x00\x00\x01\xba": "mpeg", b"FLV\x01": "flv", b"OggS": "ogg",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "asf",
}  # fmt: skip
_AUDIO = (b"ID3", b"fLaC", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9", b"#!AMR", b"caff", b"OpusHead")
_PACKETS = ((0, 188), (4, 192))  # (first sync byte, bytes of a packet) of MPEG-TS and of its form on discs
_PROBE_BYTES = 8 << 20  # bytes that FFmpeg may read to find the streams


class Window(io.RawIOBase):
    """A part of a seekable file, as a file of its own: `size` bytes from `offset`. Closing it leaves the file open."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, or all that are left if `size` is negative."""
        left = max(0, self._size - self._at)
        if not left:  # FFmpeg may seek far behind the end, where the system allows no position
            return b""
        self._file.seek(self._offset + self._at)
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data


def format_of(head: bytes) -> str:
    """Return FFmpeg's name of the container whose first bytes are `head`.

    Raises VideoError: `empty_file`, `no_video` for a file of sound, and `not_a_video` for everything else. Playlists and
    scripts that name other files (HLS, DASH, concat) are not videos.
    """
    if not head:
        raise VideoError("empty_file", "the file is empty")
    if head[4:8] in _BOXES:
        return "mov"
    if found := next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None):
        return found
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    if any(len(head) > 2 * step + start and all(head[start + n * step] == 0x47 for n in range(3)) for start, step in _PACKETS):
        return "mpegts"
    if head.startswith(_AUDIO) or (head.startswith(b"RIFF") and head[8:12] == b"WAVE"):
        raise VideoError("no_video", "the file holds only sound")
    raise VideoError("not_a_video", f"the file does not begin like a video (its first bytes are {head[:16]!r})")


def opened(file: BinaryIO, max_pixels: int) -> Any:
    """Return PyAV's container of a video. Raises VideoError if the file is no video, or its header cannot be read.

    `max_pixels` also holds for every later frame, because a stream may change its size.
    """
    av = required("av", "source video")
    file.seek(0)
    name = format_of(file.read(HEAD))
    file.seek(0)
    limits = {"max_pixels": str(max_pixels), "threads": "1"}
    closed = {"protocol_whitelist": "", "enable_drefs": "0", "probesize": str(_PROBE_BYTES)}
    try:
        return av.open(
            file, "r", format=name, options=limits, container_options=closed, metadata_errors="replace", buffer_size=1 << 16,
            io_open=_refuse,
        )  # fmt: skip
    except av.error.FFmpegError as error:
        raise failure(error, "the header of the video cannot be read") from None


def failure(error: Any, what: str) -> VideoError:
    """Return the VideoError for an error of FFmpeg: `too_large` if memory ran out, otherwise `corrupt`."""
    if isinstance(error, MemoryError):
        return VideoError("too_large", f"{what}: it needs more memory than allowed")
    return VideoError("corrupt", f"{what}: {error.strerror or type(error).__name__}")


def video_stream(container: Any, max_pixels: int) -> Any:
    """Return the first stream of moving pictures. The cover picture of a song is not one.

    Raises VideoError: `corrupt` (there is no stream at all), `no_video`, `unknown_codec` or `too_many_pixels`.
    """
    av = required("av", "source video")
    found = [one for one in container.streams.video if not one.disposition & av.stream.Disposition.attached_pic]
    if len(container.streams) == 0:
        raise VideoError("corrupt", "the header names no stream")
    if not found:
        raise VideoError("no_video", "the file has no stream of pictures, or only a cover picture")
    stream = found[0]
    context = stream.codec_context
    if context is None:
        raise VideoError("unknown_codec", "FFmpeg has no decoder for the video stream")
    pixels = max(context.width * context.height, context.coded_width * context.coded_height)
    if pixels > max_pixels:
        what = f"a frame has {context.width} x {context.height} pixels, more than the limit of {max_pixels}"
        raise VideoError("too_many_pixels", what, pixels, max_pixels)
    stream.thread_count = 1
    return stream


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    raise PermissionError(f"a video must not open another file: {url[:200]}")
