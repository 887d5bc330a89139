"""Decodes videos in a child process. A video that crashes or stops the decoder is an outcome of that video, and no more."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from vlmdata.video.settings import FrameSettings, VideoError

SILENT_S = 120.0  # a child that writes nothing, or decodes no packet, for this long will never continue
START_S = 300.0  # until the first message of a new process, on a busy machine
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_ROOT = str(Path(__file__).parents[2])


@dataclass(frozen=True)
class Place:
    """Where the bytes of a video are: a file, or `size` bytes from `offset` in a file, local or on a store of fsspec."""

    path: str
    offset: int = 0
    size: int | None = None


class Decoder:
    """Runs a decoding process, and starts another one after a crash. Use it in a `with` block."""

    def __init__(self, settings: FrameSettings) -> None:
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None
        self._errors: BinaryIO | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def process_id(self) -> int:
        """The number of the running process. Raises ValueError if there is none."""
        if self._child is None:
            raise ValueError("no decoder runs")
        return self._child.pid

    def close(self) -> None:
        """End the process, if one runs."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                pipe.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def decode(self, where: Place) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield the messages of `decode_process` about a video, with the bytes of an image or b"".

        The last message has `done`. Raises VideoError if the video cannot be used. The reason `decoder_crash` means that the
        process died of a signal, and `too_costly` also that it made no progress for two minutes.
        """
        is_done = False
        try:
            self._send({"path": where.path, "offset": where.offset, "size": where.size, "settings": self._settings.as_json()})
            spent, since = 0.0, time.monotonic()
            while not is_done:
                head, data = self._receive()
                if "spent" in head:
                    spent, since = (head["spent"], time.monotonic()) if head["spent"] != spent else (spent, since)
                    if time.monotonic() - since > SILENT_S:
                        raise VideoError("too_costly", f"the decoder made no progress for {SILENT_S:.0f} s")
                    continue
                is_done = bool(head.get("done"))
                if head.get("reason"):
                    raise VideoError(head["reason"], head["problem"], head.get("value"), head.get("threshold"))
                yield head, data
                since = time.monotonic()  # the caller may have taken its time
        finally:
            if not is_done:  # the caller stopped, or the process is unusable
                self.close()

    def _send(self, job: dict[str, Any]) -> None:
        if self._child is None:
            self._errors = tempfile.TemporaryFile(prefix="vlmdata-")  # noqa: SIM115  `close` closes it
            path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
            self._child = subprocess.Popen(
                [sys.executable, "-m", "vlmdata.video.decode_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._errors, env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path}, bufsize=0,
            )  # fmt: skip
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(job).encode() + b"\n")
        except BrokenPipeError:
            raise self._death() from None

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        head = json.loads(self._read(int.from_bytes(self._read(4, START_S), "big")))
        return head, self._read(head.get("size", 0))

    def _read(self, size: int, wait_s: float = SILENT_S) -> bytes:
        assert self._child is not None
        assert self._child.stdout is not None
        parts, number = bytearray(), self._child.stdout.fileno()
        while len(parts) < size:
            if not select.select([number], [], [], wait_s)[0]:
                raise VideoError("too_costly", f"the decoder did not answer for {wait_s:.0f} s")
            data = os.read(number, min(size - len(parts), 1 << 20))
            if not data:
                raise self._death()
            parts += data
        return bytes(parts)

    def _death(self) -> Exception:
        """Return the error for a child that has ended: the video's fault after a signal, and ours if it has a traceback."""
        assert self._child is not None
        assert self._errors is not None
        status = self._child.wait()
        if status < 0:
            return VideoError("decoder_crash", f"the decoder died of {signal.Signals(-status).name}")
        self._errors.seek(0)
        words = self._errors.read().decode("utf-8", "replace").strip()[-2000:]
        if "MemoryError" in words:
            return VideoError("too_large", "decoding needs more memory than allowed")
        return RuntimeError(f"the process that decodes videos ended with status {status}: {words}")
