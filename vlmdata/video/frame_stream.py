"""Decodes the frames of a video one by one, with exact times, within a budget. It can jump to a later time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from vlmdata.extras import required
from vlmdata.video.containers import failure
from vlmdata.video.settings import VideoError

FRAME_COST, PACKET_COST = 0.05, 0.002  # added to the pixels of a frame, in millions; most of a tiny frame's time is overhead
UNKNOWN_DISTANCE_S = Fraction(12)  # assumed distance of keyframes until two were seen; x264 writes one each 250 frames
MANY_BAD = 1000  # packets in a row that cannot be decoded, after which the rest of the file is left


class Timed(NamedTuple):
    """A decoded frame and its time since the first frame, in seconds."""

    time: Fraction
    frame: Any


class Budget:
    """Counts the cost of decoding: millions of pixels, and a little for each frame and packet."""

    def __init__(self, most: float = 0) -> None:
        self.begin(most)

    def begin(self, most: float) -> None:
        """Begin with another video, which may cost at most `most`."""
        self.spent, self._most = 0.0, most

    def spend(self, cost: float) -> None:
        """Add a cost. Raises VideoError `too_costly` if the sum exceeds the limit."""
        self.spent += cost
        if self.spent > self._most:
            raise VideoError("too_costly", "decoding costs more than the limit", round(self.spent), self._most)


def packets(container: Any, stream: Any, budget: Budget) -> Iterator[Any]:
    """Yield the packets of a stream. Raises FFmpegError for a damaged file, and VideoError `too_costly`.

    The packets of other streams cost too, so that a search for rare ones, such as subtitles in a long film, counts as progress.
    """
    while True:
        try:
            for packet in container.demux():
                budget.spend(PACKET_COST)
                if packet.stream.index == stream.index:
                    yield packet
            return
        except IndexError:  # PyAV does not know a stream that begins after the header (18.1). The next packet follows
            budget.spend(PACKET_COST)


class FrameStream:
    """The frames of one stream in the order of their times. Frames with a repeated or earlier time are left out.

    Damaged packets are skipped and counted in `bad_packets`. `start` is the time of the first frame in the container's clock.
    `is_cut` says that the file could not be read to its end.
    """

    def __init__(self, container: Any, stream: Any, budget: Budget) -> None:
        self._av = required("av", "source video")
        self._container, self._stream, self._budget = container, stream, budget
        self._packets: Iterator[Any] | None = packets(container, stream, budget)
        self._ready: deque[Any] = deque()
        self._last_key: Fraction | None = None
        self._is_after_jump = False
        self._landed: Fraction | None = None  # time of the first frame after a jump
        self._held: Timed | None = None
        self.start: Fraction | None = None
        self.last: Fraction | None = None  # time of the last frame
        self.gap = Fraction(1, 25)  # seconds between the last two frames
        self.key_distance = Fraction(0)  # the longest distance of keyframes so far, in seconds; 0: unknown
        self.frames = self.bad_packets = 0
        self.is_cut = False
        self._bad_in_row = 0

    def begin(self) -> Fraction:
        """Decode the first frame, which `next` returns later, and return its time in the container's clock, in seconds.

        Raises VideoError `no_frame` if there is none.
        """
        self._held = self.next()
        if self._held is None or self.start is None:
            raise VideoError("no_frame", "no frame of the video can be decoded")
        return self.start

    def next(self) -> Timed | None:
        """Return the next frame, or None at the end. Raises VideoError `too_costly` or `too_large`."""
        held, self._held = self._held, None
        if held is not None:
            return held
        while True:
            while self._ready:
                if (found := self._timed(self._ready.popleft())) is not None:
                    return found
            if self._packets is None:
                return None
            self._decode_packet()

    @property
    def is_at_end(self) -> bool:
        """Whether the file was read to its end."""
        return self._packets is None

    def should_jump(self, goal: Fraction) -> bool:
        """Return whether a jump to `goal` probably saves decoding: it is farther away than the next keyframe."""
        assert self.last is not None
        return goal - self.last > 2 * (self.key_distance or UNKNOWN_DISTANCE_S)

    def jump(self, goal: Fraction) -> None:
        """Continue at a keyframe that is not after `goal`. Earlier frames are left out, so times still grow.

        A search in MPEG-TS may end at a later keyframe. Then it is repeated for earlier times. The place where a search ends
        shows how far keyframes are apart, so a video with one keyframe is not decoded from its beginning again and again.
        """
        before = self.last, self.gap
        assert before[0] is not None
        for back in (0, 1, 4, 16, None):
            at = before[0] if back is None else max(before[0], goal - back * (self.key_distance or UNKNOWN_DISTANCE_S))
            if not self._seek(at):
                return  # the container cannot be searched: decode through
            self._held = self.next()
            if self._landed is not None and self._landed <= goal:
                self.key_distance = max(self.key_distance, at - self._landed)
                return
            if back is not None:
                self.last, self.gap = before

    def _seek(self, time: Fraction) -> bool:
        assert self.start is not None
        try:
            self._container.seek(int((time + self.start) / self._stream.time_base), stream=self._stream, backward=True)
        except self._av.error.FFmpegError:
            return False
        self._ready.clear()
        self._packets = packets(self._container, self._stream, self._budget)
        self._last_key = self._landed = self._held = None
        self._is_after_jump = True
        return True

    def _decode_packet(self) -> None:
        assert self._packets is not None
        try:
            packet = next(self._packets, None)
        except self._av.error.FFmpegError as error:
            self._stop(error)
            return
        if packet is None:
            self._packets = None
            return
        self._note_key(packet)
        try:
            self._ready.extend(packet.decode())
            self._bad_in_row = 0
        except self._av.error.EOFError:
            self._packets = None
        except self._av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise failure(error, "a frame cannot be decoded") from None
            self.bad_packets += 1
            self._bad_in_row += 1
            if self._bad_in_row > MANY_BAD:
                self._stop(error)

    def _stop(self, error: Any) -> None:
        if isinstance(error, MemoryError):
            raise failure(error, "the video cannot be read") from None
        self._packets, self.is_cut = None, True

    def _note_key(self, packet: Any) -> None:
        if not packet.is_keyframe or packet.pts is None:
            return
        time = packet.pts * packet.time_base
        if self._last_key is not None:
            self.key_distance = max(self.key_distance, time - self._last_key)
        self._last_key = time

    def _timed(self, frame: Any) -> Timed | None:
        self._budget.spend(frame.width * frame.height / 1e6 + FRAME_COST)
        if frame.is_corrupt and self._is_after_jump:
            return None  # a frame of an open group of pictures, whose references lie before the keyframe
        self._is_after_jump = False
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is not None:
            time = pts * frame.time_base
        else:  # an old AVI: no packet has a time
            time = Fraction(0) if self.last is None else self.last + (self.start or 0) + self._frame_time()
        if self.start is None:
            self.start = time
        time -= self.start
        self._landed = time if self._landed is None else self._landed
        if self.last is not None and time <= self.last:
            return None
        if self.last is not None:
            self.gap = time - self.last
        self.last = time
        self.frames += 1
        return Timed(time, frame)

    def _frame_time(self) -> Fraction:
        rate = self._stream.average_rate
        return 1 / Fraction(rate) if rate else Fraction(1, 25)


def last_time(container: Any, stream: Any, budget: Budget) -> Fraction | None:
    """Return the seconds from the first frame to the end of the last one, or None if the packets have no times.

    No frame is decoded. The container is at its end afterwards.
    """
    av = required("av", "source video")
    first = last = None
    try:
        for packet in packets(container, stream, budget):
            if packet.pts is None:
                continue
            first = packet.pts if first is None else min(first, packet.pts)
            last = max(last or packet.pts, packet.pts + (packet.duration or 0))
    except av.error.FFmpegError as error:
        if isinstance(error, MemoryError):
            raise failure(error, "the video cannot be read") from None
    return None if first is None or last is None else (last - first) * stream.time_base
