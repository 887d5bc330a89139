"""Subtitles of files and tracks become plain texts with times."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.video.made_videos import read, with_track
from vlmdata.video.frame_stream import PACKET_COST, Budget
from vlmdata.video.subtitle_tracks import said_in, text_track
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


HOSTILE = {
    "blank lines": "\n" * 300_000,
    "braces that stay open": "0:01 --> 0:02\n{" + r"\p1" * 300_000,
    "drawings that stay open": r"0:01 --> 0:02\n{\p1}{".replace(r"\n", "\n") + r"\p0" * 300_000,
    "tags that stay open": "0:01 --> 0:02\n" + "<a" * 300_000,
    "a million texts": "0:01-->0:02\nx\n" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_time_to_read_hostile_subtitles_grows_with_their_length(name: str, tmp_path: Path) -> None:
    """A pattern that tries each pair of places would take hours, so the process ends at its limit of CPU time."""
    (path := tmp_path / "a.srt").write_text(HOSTILE[name])
    code = (
        "import resource, sys; from pathlib import Path; from vlmdata.video.subtitles import in_file\n"
        f"resource.setrlimit(resource.RLIMIT_CPU, (60, 60)); print(len(in_file(Path({str(path)!r}).read_text())))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (ended.returncode, int(ended.stdout or -1) <= 1) == (0, True)


def test_shapes_are_left_out_and_the_texts_around_them_stay() -> None:
    assert plain(r"a{\i1\p1}m 0 0 l 9 9{\p0}b{\p2}m 1 1{x}m 2 2") == "ab"
    assert plain(r"{\pos(1,2)}a {note} b") == "a {note} b"


def test_a_search_for_rare_subtitles_costs_something_for_each_packet(tmp_path: Path) -> None:
    with_track(path := tmp_path / "a.mkv", "subrip", [(0.5, 1.0, "one")])
    with av.open(str(path)) as container:
        track = text_track(container, "")
        assert track is not None
        found = said_in(container, track, Fraction(0), budget := Budget(1))
    assert [said.text for said in found] == ["one"]
    assert budget.spent >= 21 * PACKET_COST  # 20 frames and the text
