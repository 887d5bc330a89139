"""Every broken or hostile file has an outcome, opens no other file, and needs bounded memory and time."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.video.made_videos import grey, photo, read, write_sound, write_video
from vlmdata.video.decoder import Decoder, Place
from vlmdata.video.settings import FrameSettings, VideoError


def reason(path: Path, **settings: int) -> str:
    with pytest.raises(VideoError) as raised:
        read(path, **settings)
    return raised.value.reason


def test_files_without_moving_pictures_have_the_reason_no_video(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.m4a")
    write_sound(tmp_path / "a.mkv")
    write_sound(tmp_path / "cover.mp4", cover=True)
    (tmp_path / "song.mp4").write_bytes(b"ID3\x04\x00" + b"\0" * 99)
    assert {path.name: reason(path) for path in tmp_path.iterdir()} == dict.fromkeys(
        ("a.m4a", "a.mkv", "cover.mp4", "song.mp4"), "no_video"
    )


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "empty_file"),
        (b"a text\n" * 100, "not_a_video"),
        (b"GIF89a" + b"\0" * 99, "not_a_video"),
        (b"\x1a\x45\xdf\xa3" + b"\xff" * 4000, "corrupt"),
        (b"\0\0\0\x18ftypmp42" + b"\0" * 200, "corrupt"),
        (b"RIFF\xff\xff\xff\xffAVI LIST" + b"\xff" * 500, "corrupt"),
    ],
    ids=["empty", "text", "gif", "matroska", "mp4", "avi"],
)
def test_a_file_that_is_no_video_has_an_outcome(data: bytes, found: str, tmp_path: Path) -> None:
    (path := tmp_path / "a.mp4").write_bytes(data)
    assert reason(path) == found


@pytest.mark.parametrize("ending", ["mkv", "ts", "avi"])
def test_a_cut_file_gives_the_frames_before_the_cut(ending: str, tmp_path: Path) -> None:
    frames = [photo(n) for n in range(60)]
    write_video(path := tmp_path / f"a.{ending}", frames, codec="mpeg4", options={"g": "5"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    _, pictures, ending_of_cut = read(path, every_s=0.5)
    assert 4 <= len(pictures) < 12
    if ending == "mkv":  # FFmpeg estimates the duration of the other two from their size
        assert ending_of_cut.facts["ends_early"]


def test_an_mp4_that_is_cut_before_its_index_is_corrupt(tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mp4", [photo(n) for n in range(20)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert reason(path) == "corrupt"


def test_damaged_bytes_cost_only_some_frames(tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.avi", [photo(n) for n in range(60)], codec="mjpeg", pixels="yuvj420p")
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 3000] = b"\x55" * 3000
    path.write_bytes(data)
    assert 6 <= len(read(path, every_s=0.5)[1]) <= 13


def test_a_video_with_too_many_pixels_is_refused_by_its_header(tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mp4", [photo(1, 640, 480)] * 2)
    assert reason(path, max_pixels=640 * 480 - 1) == "too_many_pixels"
    assert len(read(path, max_pixels=640 * 480)[1]) == 1


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{secret}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><BaseURL>file://{secret}</BaseURL></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
    "ffmetadata": ";FFMETADATA1\ntitle={secret}\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_with_the_name_of_a_video_opens_no_other_file(kind: str, tmp_path: Path) -> None:
    write_video(secret := tmp_path / "secret.mp4", [grey(1)] * 5)
    (path := tmp_path / "a.mp4").write_text(PLAYLISTS[kind].format(secret=secret))
    assert reason(path) == "not_a_video"


def test_an_mp4_whose_data_lie_in_another_file_does_not_open_it(tmp_path: Path) -> None:
    """The data reference of a QuickTime file names a file by its path."""
    write_video(secret := tmp_path / "secret.mov", [photo(n) for n in range(5)])
    data = bytearray(secret.read_bytes())
    at = data.index(b"url \0\0\0\1")
    data[at : at + 8] = b"url \0\0\0\0"  # no longer in this file; the rest of the box is the address
    start = data.index(b"mdat") + 4
    data[start : data.index(b"moov") - 4] = b"\0" * (data.index(b"moov") - 4 - start)
    (path := tmp_path / "a.mov").write_bytes(data)
    code = (
        "import sys; from pathlib import Path; from tests.video.made_videos import read\n"
        "sys.addaudithook(lambda name, args: print(args[0]) if name == 'open' and 'secret' in str(args[0]) else None)\n"
        f"read(Path({str(path)!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ended.stdout == ""
    assert "no_frame" in ended.stderr or "VideoError" in ended.stderr


def test_a_crash_of_the_decoder_is_the_outcome_of_one_video(tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mp4", [photo(n) for n in range(20)])
    with Decoder(FrameSettings(every_s=0.1, min_distance=0)) as decoder:
        messages = decoder.decode(Place(str(path)))
        next(messages)
        os.kill(decoder.process_id, signal.SIGSEGV)
        with pytest.raises(VideoError) as raised:
            list(messages)
        assert raised.value.reason == "decoder_crash"
        assert len(list(decoder.decode(Place(str(path))))) == 22  # a new process: the beginning, 20 frames, the ending


def test_a_video_that_needs_more_memory_than_allowed_is_too_large(tmp_path: Path) -> None:
    write_video(path := tmp_path / "a.mkv", [photo(1, 4096, 2160)], codec="ffv1", options={"slices": "4"})
    with Decoder(FrameSettings(max_memory_mb=10)) as decoder, pytest.raises(VideoError) as raised:
        list(decoder.decode(Place(str(path))))
    assert raised.value.reason == "too_large"


def test_ten_hours_take_bounded_memory_and_little_time(tmp_path: Path) -> None:
    times = [60 * n for n in range(600)]  # a frame each minute
    write_video(path := tmp_path / "a.mkv", [photo(n % 7) for n in range(600)], times=times, rate=1, codec="mpeg4")
    before, threads = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, len(os.listdir("/proc/self/task"))
    _, pictures, _ = read(path, every_s=1)
    assert [one.time_s for one in pictures] == [60.0 * n for n in range(600)]
    assert len(read(path, every_s=1, max_frames=10)[1]) == 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kB
    assert len(os.listdir("/proc/self/task")) <= threads + 2  # a scaler for each frame would leave its threads
