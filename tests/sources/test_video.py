"""The source `video`: files, tars and addresses become rows of frames with times, with texts and facts beside them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loader.tars import write_tar
from tests.servers import LoopbackServer, redirect, reply
from tests.sources.reading import read_all
from tests.video.made_videos import photo, with_track, write_sound, write_video
from vlmdata import stream
from vlmdata.build import run
from vlmdata.sources.video import Video
from vlmdata.step import RecipeError
from vlmdata_train.data.document import Video as TrainedVideo
from vlmdata_train.data.read_document import read_document

SRT = "1\n00:00:00,200 --> 00:00:00,900\nFirst words\n\n2\n00:00:01,700 --> 00:00:02,000\n<i>Last</i> words\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of two seconds, with ten different pictures a second."""
    write_video(path := tmp_path_factory.mktemp("made") / "a.mp4", [photo(n // 5) for n in range(20)])
    return path


def rows_of(path: Path, **parameters: Any) -> list[dict[str, Any]]:
    return read_all(Video(path=str(path), every_s=0.5, **parameters)).to_pylist()


def shape(row: dict[str, Any]) -> list[Any]:
    """Return the time of each frame and each text, in order."""
    return [image["time_s"] if image else text["text"] for image, text in zip(row["images"], row["texts"], strict=True)]


def extra(row: dict[str, Any]) -> dict[str, Any]:
    return json.loads(row["extra"])


def test_a_file_is_a_row_of_frames_with_subtitles_between_and_the_caption_last(made: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(made.read_bytes())
    (tmp_path / "a.en.srt").write_text(SRT)
    (tmp_path / "a.txt").write_text("Blots of colour")
    (tmp_path / "a.json").write_text(json.dumps({"licence": "CC0", "video": "a name that we use"}))
    (row,) = rows_of(tmp_path)
    assert shape(row) == [0.0, "First words", 0.5, 1.0, 1.5, "Last words", "Blots of colour"]
    facts = extra(row)
    assert (facts["licence"], facts["column_video"], facts["subtitles"]) == (
        "CC0",
        "a name that we use",
        [[0.2, 0.9], [1.7, 2.0]],
    )
    assert facts["video"] == {
        "container": "mov", "codec": "h264", "width": 64, "height": 48, "duration_s": 2.0, "frames_decoded": 20,
        "equal_frames": 0,
    }  # fmt: skip
    assert [(image["format"], image["width"], image["height"]) for image in row["images"] if image] == [("jpeg", 64, 48)] * 4


def test_the_subtitles_of_the_wanted_language_are_read(made: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(made.read_bytes())
    for language, words in (("de", "Hallo"), ("en", "Hello")):
        (tmp_path / f"a.{language}.vtt").write_bytes(f"WEBVTT\n\n00:00.100 --> 00:00.400\n{words}\n".encode("utf-16"))
    assert [text["text"] for text in rows_of(tmp_path, language="en")[0]["texts"] if text] == ["Hello"]
    assert [text for text in rows_of(tmp_path, subtitles=False)[0]["texts"] if text] == []


def test_a_file_of_subtitles_replaces_the_track_of_the_video(tmp_path: Path) -> None:
    with_track(tmp_path / "a.mkv", "srt", [(0.5, 1.0, "in the video")])
    assert [text["text"] for text in rows_of(tmp_path)[0]["texts"] if text] == ["in the video"]
    (tmp_path / "a.srt").write_text(SRT)
    assert [text["text"] for text in rows_of(tmp_path)[0]["texts"] if text] == ["First words", "Last words"]


def test_clips_are_rows_with_their_own_texts(made: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(made.read_bytes())
    (tmp_path / "a.srt").write_text(SRT)
    first, second = rows_of(tmp_path, clip_s=1.0)
    assert (shape(first), shape(second)) == ([0.0, "First words", 0.5], [1.0, 1.5, "Last words"])
    assert [extra(row)["video"]["clip_start_s"] for row in (first, second)] == [0.0, 1.0]


def test_a_frame_at_the_begin_of_a_clip_belongs_to_it(tmp_path: Path) -> None:
    """Of floating-point numbers, 3.3 / 1.1 is less than 3."""
    write_video(tmp_path / "a.mkv", [photo(n) for n in range(40)], codec="mpeg4")
    rows = read_all(Video(path=str(tmp_path), every_s=0.1, clip_s=1.1, min_distance=0)).to_pylist()
    assert [row["images"][0]["time_s"] for row in rows] == [0.0, 1.1, 2.2, 3.3]
    assert [len(row["images"]) for row in rows] == [11, 11, 11, 7]


def test_each_unusable_file_is_a_dropped_row_with_its_place(made: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mkv").write_text("a text")
    write_sound(tmp_path / "sound.mp4")
    (tmp_path / "good.mp4").write_bytes(made.read_bytes())
    (tmp_path / "bad_text.mp4").write_bytes(made.read_bytes())
    (tmp_path / "bad_text.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "link.mp4").symlink_to(made)
    found = {row["place"]: row["reason"] for row in rows_of(tmp_path)}
    assert found == {
        "empty.mp4": "empty_file", "text.mkv": "not_a_video", "sound.mp4": "no_video", "good.mp4": None,
        "bad_text.mp4": "bad_encoding", "link.mp4": "outside_folder",
    }  # fmt: skip


@pytest.mark.parametrize("is_compressed", [False, True])
def test_the_videos_of_a_tar_have_the_texts_of_their_key(is_compressed: bool, made: Path, tmp_path: Path) -> None:
    members = [
        ("x/1.mp4", made.read_bytes()), ("x/1.json", b'{"caption": "one", "views": 3}'), ("x/1.en.srt", SRT.encode()),
        ("x/2.mp4", b"no video"), ("3.txt", b"alone"), ("4.MP4", made.read_bytes()), ("4.txt", b"four"),
    ]  # fmt: skip
    path = write_tar(tmp_path / "a.tar", members)
    if is_compressed:
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    rows = rows_of(tmp_path)
    assert [row["reason"] for row in rows] == [None, "not_a_video", "no_video", None]
    assert shape(rows[0]) == [0.0, "First words", 0.5, 1.0, 1.5, "Last words", "one"]
    assert shape(rows[3])[-1] == "four"
    assert {name: extra(rows[0])[name] for name in ("views", "source_key")} == {"views": 3, "source_key": "x/1"}
    assert all(row["place"].startswith(f"{next(tmp_path.iterdir()).name}, byte ") for row in rows)


@pytest.fixture
def server(made: Path) -> Iterator[LoopbackServer]:
    routes = {"/a.mp4": reply(made.read_bytes()), "/page": reply(b"<html>"), "/b": redirect("/a.mp4")}
    with LoopbackServer(routes) as server:
        yield server


def test_addresses_are_fetched_and_failures_are_counted(server: LoopbackServer, tmp_path: Path) -> None:
    urls = [server.url("/a.mp4"), server.url("/b"), server.url("/gone"), server.url("/page"), None, "file:///etc/passwd"]
    pq.write_table(pa.table({"link": urls, "words": list("abcdef"), "id": range(6)}), tmp_path / "list.parquet")
    host = server.url("/").split("/")[2]
    rows = rows_of(tmp_path / "list.parquet", url="link", caption="words", allowed_hosts=(host,))
    assert [row["reason"] for row in rows] == [None, None, "http_404", "not_a_video", "no_address", "bad_url"]
    assert [row["url"] for row in rows] == [*urls[:4], None, None]
    assert shape(rows[0]) == [0.0, 0.5, 1.0, 1.5, "a"]
    assert extra(rows[1])["id"] == 1
    assert rows[4]["place"] == "list.parquet, row 5"


def test_private_addresses_and_too_large_bodies_are_refused(server: LoopbackServer, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(server.url("/a.mp4"))
    assert [row["reason"] for row in rows_of(tmp_path / "list.txt", url="url")] == ["private_address"]
    assert server.requests == []
    host = server.url("/").split("/")[2]
    found = rows_of(tmp_path / "list.txt", url="url", allowed_hosts=(host,), max_bytes=1000)
    assert [row["reason"] for row in found] == ["too_large"]


def test_a_long_list_is_read_in_pieces_and_every_record_once(tmp_path: Path) -> None:
    lines = [f"http://127.0.0.1:1/{n}" for n in range(250)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    source = Video(path=str(tmp_path / "list.txt"), url="url")
    assert [piece["start"] for piece in source.pieces()] == [0, 100, 200]
    assert read_all(source)["url"].to_pylist() == lines


def test_many_small_files_share_a_piece(made: Path, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number:02}.mp4").write_bytes(b"")
    pieces = Video(path=str(tmp_path)).pieces()
    assert [len(piece["videos"]) for piece in pieces] == [50, 10]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"every_s": 0}, "every_s must be above 0, not 0"),
        ({"count": 3, "scenes": "first"}, "two ways"),
        ({"min_distance": 300}, "min_distance must be 0 to 256, not 300"),
        ({"caption": "text"}, "needs `url`"),
        ({"encoding": "utf-9"}, "encoding 'utf-9' is unknown"),
    ],
)
def test_a_mistake_in_the_recipe_is_one_line(wrong: dict[str, Any], words: str, made: Path) -> None:
    with pytest.raises(RecipeError, match=words):
        Video(path=str(made), **wrong).check()


@pytest.mark.whole
def test_the_trainer_reads_the_shards_as_videos(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(made.read_bytes())
    (folder / "a.txt").write_text("Blots of colour")
    (folder / "b.mp4").write_bytes(b"broken")
    recipe = {
        "source": {"type": "video", "path": str(folder), "every_s": 0.5}, "steps": [{"resize": {"size": 32}}],
        "shards": {"layout": "documents"},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    manifest = run(tmp_path / "recipe.yaml", tmp_path / "out", local=True, workers=1)
    assert manifest is not None
    (sample,) = list(stream(str(tmp_path / "out"), torch=False))
    video, caption = read_document(sample).positions
    assert isinstance(video, TrainedVideo)
    assert (video.times, caption) == ((0.0, 0.5, 1.0, 1.5), "Blots of colour")
