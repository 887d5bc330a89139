"""The process that decodes videos: `python -m vlmdata.video.decode_process`. A damaged video may crash it or use up its memory.

It reads one job per line from stdin, and writes messages to stdout: 4 bytes of length, JSON, and the bytes of an image if the
JSON has `size`. The last message of a job has `done`. Each second it also writes `{"spent": cost}`, the cost of the job so far,
which shows that the decoder still makes progress. This ends the process if its parent has died.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

from vlmdata.extras import required
from vlmdata.process.thread import Thread
from vlmdata.readers.open_file import raw_file
from vlmdata.untrusted import one_line
from vlmdata.video.containers import Window
from vlmdata.video.frame_stream import Budget
from vlmdata.video.read_video import Ending, Picture, read_video
from vlmdata.video.settings import FrameSettings, VideoError

ALIVE_S = 1.0


class _Output:
    """Writes messages of two threads, whole."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def send(self, head: dict[str, Any], data: bytes = b"") -> None:
        text = json.dumps(head).encode()
        with self._lock:
            self._stream.write(len(text).to_bytes(4, "big") + text + data)
            self._stream.flush()


def main() -> None:
    """Work through the jobs of stdin until it is closed."""
    output = _Output(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # nothing else may write between the messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C of a terminal: the parent closes stdin
    required("av", "source video")  # its libraries count as memory, so they are loaded before the limit is set
    budget = Budget()
    Thread(_say_spent, output, budget, name="spent").start()
    for line in sys.stdin.buffer:
        job = json.loads(line)
        settings = FrameSettings(**job["settings"])
        _limit_memory(settings.max_memory_mb)
        budget.begin(settings.max_cost)
        for head, data in _messages(job, settings, budget):
            output.send(head, data)


def _say_spent(output: _Output, budget: Budget) -> None:
    ended = threading.Event()
    while not ended.wait(ALIVE_S):
        try:
            output.send({"spent": budget.spent})
        except OSError:  # the parent is gone
            os._exit(0)


def _messages(job: dict[str, Any], settings: FrameSettings, budget: Budget) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Yield the messages of one job. Errors of the file and of the video become a message."""
    try:
        with raw_file(job["path"]) as file:
            size = file.seek(0, os.SEEK_END) if job["size"] is None else job["size"]
            part: Any = Window(file, job["offset"], size)  # unlike a file, it accepts a seek to any place, which FFmpeg tries
            for one in read_video(part, settings, budget):
                if isinstance(one, Picture):
                    yield {"time_s": one.time_s, "clip": one.clip, "size": len(one.data)}, one.data
                elif isinstance(one, Ending):
                    yield {"done": True, "facts": one.facts}, b""
                else:
                    yield {"facts": one.facts, "offset_s": one.offset_s, "texts": [list(said) for said in one.texts]}, b""
    except VideoError as error:
        found = {"reason": error.reason, "problem": str(error), "value": error.value, "threshold": error.threshold}
        yield {"done": True, **found}, b""
    except MemoryError:
        yield {"done": True, "reason": "too_large", "problem": "decoding needs more memory than allowed"}, b""
    except OSError as error:
        yield {"done": True, "reason": "unreadable_file", "problem": one_line(error)}, b""


def _limit_memory(more_mb: int) -> None:
    """Let this process allocate at most `more_mb` MB in addition to what it has now."""
    with open("/proc/self/status") as status:
        held = next((int(line.split()[1]) for line in status if line.startswith("VmData:")), 0)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = held * 1024 + more_mb * 1_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    main()
