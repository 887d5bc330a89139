"""Subtitles of files and tracks become plain texts with times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.video.made_videos import read, with_track
from vlmdata.video.subtitles import Said, in_file, plain

SRT = "1\r\n00:00:00,500 --> 00:00:01,000\r\n<i>One</i>\r\ntwo\r\n\r\n"
SRT += "2\r\n00:01:02,250 --> 01:00:03,000\r\n{\\an8}Three &amp; four\r\n"
VTT = """WEBVTT - a title

STYLE
::cue {color: lime}

intro
00:00.500 --> 00:01.000 align:start position:0%
<v Anna>One <00:00:00.700><c.yellow>two</c>

NOTE a comment

01:02.250 --> 02:00.000
Three
"""
ASS = """[Script Info]
Title: x

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,not shown
Dialogue: 0,0:00:00.50,0:00:01.00,Default,,0,0,0,,{\\i1}One{\\i0}, two\\Nthree
Dialogue: 0,0:00:02.00,0:00:03.00,Default,,0,0,0,,{\\p1}m 0 0 l 9 9{\\p0}
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SRT, [Said(0.5, 1.0, "One\ntwo"), Said(62.25, 3603.0, "Three & four")]),
        (VTT, [Said(0.5, 1.0, "One two"), Said(62.25, 120.0, "Three")]),
        (ASS, [Said(0.5, 1.0, "One, two\nthree")]),
        ("", []),
        ("no times here", []),
        ("1\n00:00:01,0 --> 00:00:02,0\na\n2\n00:00:03,0 --> 00:00:04,0\nb", [Said(1.0, 2.0, "a"), Said(3.0, 4.0, "b")]),
        ("00:00:03,0 --> 00:00:04,0\nb\n\n00:00:01,0 --> 00:00:02,0\na", [Said(1.0, 2.0, "a"), Said(3.0, 4.0, "b")]),
    ],
    ids=["srt", "vtt", "ass", "empty", "prose", "no blank line", "unsorted"],
)
def test_the_texts_of_a_file_are_plain(text: str, found: list[Said]) -> None:
    assert in_file(text) == found


def test_a_text_that_repeats_the_one_before_is_left_out() -> None:
    blocks = [f"00:00:0{n},0 --> 00:00:0{n + 1},0\n{word}\n" for n, word in enumerate("aabba")]
    assert [one.text for one in in_file("\n".join(blocks))] == ["a", "b", "a"]


def test_signs_that_are_no_tags_stay() -> None:
    assert plain("1 < 2 and 3 > 2, I {love} it") == "1 < 2 and 3 > 2, I {love} it"


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "mov_text"), ("mkv", "srt")])
def test_the_texts_of_a_track_are_read(ending: str, codec: str, tmp_path: Path) -> None:
    with_track(path := tmp_path / f"a.{ending}", codec, [(0.25, 0.75, "One <b>two</b>"), (1.5, 1.9, "Straße")])
    assert read(path)[0].texts == [Said(0.25, 0.75, "One two"), Said(1.5, 1.9, "Straße")]
    assert read(path, subtitles=False)[0].texts == []
