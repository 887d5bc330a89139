"""Subtitles as plain texts with times, from files (SubRip, WebVTT, ASS) and from the packets of text streams."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vlmdata.readers.strings import clean

ENDINGS = (".srt", ".vtt", ".ass", ".ssa")
MOST, MOST_CHARS = 100_000, 4_000_000  # texts and characters of one video; a film has about 2,000 texts
_CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMES = re.compile(rf"^[^\S\n]*{_CLOCK}[^\S\n]*-->[^\S\n]*{_CLOCK}.*$", re.MULTILINE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>")  # <i>, <c.yellow>, <v Anna>, and WebVTT's times within a text
_OVERRIDE = re.compile(r"\{\\[^{}]*\}")  # {\an8}, {\i1}
_BRACES = re.compile(r"\{([^{}]*)\}")
_DRAW = re.compile(r"\\p([0-9])")  # {\p1} begins a drawing, and {\p0} ends it


class Said(NamedTuple):
    """A subtitle: its text, and the seconds at which it is shown and hidden."""

    start: float
    end: float
    text: str


def plain(text: str) -> str:
    """Return a text without the tags of SubRip, WebVTT and ASS, and without white space at the ends of its lines."""
    text = _OVERRIDE.sub("", _without_drawings(text)).replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")
    lines = html.unescape(_TAG.sub("", text)).replace("\0", "").splitlines()
    return clean("\n".join(filter(None, map(str.strip, lines))))


def _without_drawings(text: str) -> str:
    """Return a text of ASS without the shapes between {\\p1} and {\\p0}. The time grows with the length of the text."""
    if "\\p" not in text:
        return text
    kept: list[str] = []
    at, is_drawing = 0, False
    for braces in _BRACES.finditer(text):
        if not is_drawing:
            kept.append(text[at : braces.start()])
        at = braces.end()
        scales = _DRAW.findall(braces[1])
        is_drawing = scales[-1] != "0" if scales else is_drawing
        if not scales and not is_drawing:
            kept.append(braces[0])
    return "".join(kept) if is_drawing else "".join([*kept, text[at:]])


def in_file(text: str) -> list[Said]:
    """Return the subtitles in a file, sorted by time. A line that is not understood is left out."""
    found = _in_ass(text) if "[Events]" in text else _in_blocks(text.replace("\r\n", "\n").replace("\r", "\n"))
    return tidy(found)


def tidy(found: Iterable[Said]) -> list[Said]:
    """Return the first 100,000 subtitles sorted by time, without blank ones and without repeats of the text before."""
    kept: list[Said] = []
    chars = 0
    for number, one in enumerate(found):
        chars += len(one.text)
        if number >= MOST or chars > MOST_CHARS:
            break
        kept.append(one)
    kept.sort(key=lambda one: (one.start, one.end))
    alone: list[Said] = []
    for one in kept:
        if one.text and not (alone and alone[-1].text == one.text):
            alone.append(one)
    return alone


def _in_blocks(text: str) -> Iterator[Said]:
    """Yield the subtitles of SubRip or WebVTT: a line of times, then lines up to the next block."""
    times = list(itertools.islice(_TIMES.finditer(text), MOST + 1))  # `tidy` drops all after the first MOST
    for one, following in itertools.zip_longest(times, times[1:]):
        body = text[one.end() : following.start() if following else len(text)].lstrip("\n")
        body = re.split(r"\n[ \t]*\n", body, maxsplit=1)[0]
        if following and body.endswith("\n"):  # no blank line before the next number or identifier
            body = re.sub(r"\n\d+\n$", "", body)
        yield Said(_seconds(*one.groups()[:4]), _seconds(*one.groups()[4:]), plain(body))


def _in_ass(text: str) -> Iterator[Said]:
    names = ["layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text"]
    for line in text[text.index("[Events]") :].splitlines():
        kind, _, rest = line.partition(":")
        if kind.strip() == "Format":
            names = [name.strip().lower() for name in rest.split(",")]
        elif kind.strip() == "Dialogue":
            parts = dict(zip(names, rest.split(",", len(names) - 1), strict=False))
            clocks = [re.fullmatch(_CLOCK, parts.get(name, "").strip()) for name in ("start", "end")]
            if clocks[0] and clocks[1]:
                yield Said(_seconds(*clocks[0].groups()), _seconds(*clocks[1].groups()), plain(parts.get("text", "")))


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str | None) -> float:
    whole = int((hours or "0")[-6:]) * 3600 + int(minutes) * 60 + int(seconds)
    return whole + (int(fraction) / 10 ** len(fraction) if fraction else 0.0)


def in_packet(codec: str, data: bytes) -> str:
    """Return the text of a packet of a subtitle stream. `codec` is FFmpeg's name of its format."""
    if codec == "mov_text":  # two bytes of length, the text, then styles
        data = data[2 : 2 + int.from_bytes(data[:2], "big")]
    is_utf16 = data.startswith((b"\xfe\xff", b"\xff\xfe"))
    text = data.decode("utf-16" if is_utf16 else "utf-8", "replace")
    if codec in ("ass", "ssa"):  # number, layer, style, name, three margins, effect, text
        text = text.split(",", 8)[-1]
    return plain(text)
