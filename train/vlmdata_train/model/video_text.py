"""Texts that describe a video and its frames in a prompt, from templates with names in braces.

`{frames}` is the number of frames, `{frames_in_words}` the same in English words, and `{duration}` the time of the last frame
as H:MM:SS. In the text of a frame, `{number}` is its number from 1, `{seconds}` its time with one decimal, and `{clock}`
its time as MM:SS.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NAMES = ("frames", "frames_in_words", "duration", "number", "seconds", "clock")
ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def check_text(template: str | None, name: str) -> None:
    """Raise ValueError if the template in the parameter `name` has an unknown name in braces."""
    for found in re.findall(r"{(\w+)}", template or ""):
        if found not in NAMES:
            raise ValueError(f"{name}: {{{found}}} is unknown. Use {', '.join(f'{{{known}}}' for known in NAMES)}")


def video_text(template: str, seconds: Sequence[float], number: int = 0) -> str:
    """Return the template with the values of a video with frames at these times, and of frame `number`, counted from 0."""
    time, end = seconds[number], int(seconds[-1])
    values = {
        "frames": str(len(seconds)), "frames_in_words": in_words(len(seconds)),
        "duration": f"{end // 3600}:{end // 60 % 60:02d}:{end % 60:02d}", "number": str(number + 1),
        "seconds": f"{time:.1f}", "clock": f"{int(time // 60):02d}:{int(time % 60):02d}",
    }  # fmt: skip
    return re.sub(r"{(\w+)}", lambda found: values[found[1]], template)


def in_words(number: int) -> str:
    """Return a number from 0 to 999 in English words, such as "one hundred and twenty-five". Raises ValueError for others."""
    if not 0 <= number <= 999:
        raise ValueError(f"{number} frames: only numbers up to 999 are written in words. Set `max_frames`")
    if number >= 100:
        rest = number % 100
        return f"{ONES[number // 100]} hundred" + (f" and {in_words(rest)}" if rest else "")
    if number >= 20:
        return TENS[number // 10 - 2] + (f"-{ONES[number % 10]}" if number % 10 else "")
    return ONES[number]
