"""A chat shows images and videos in its first turn, and reports a mistake in one line."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.inputs.tars import jpeg
from tests.train.runs import MODEL, tiny_recipe, write_data
from tests.train.shards import drawing
from vlmdata_train.__main__ import main
from vlmdata_train.chat import Conversation
from vlmdata_train.checks import frames_in
from vlmdata_train.data.document import Video
from vlmdata_train.loop.loop import run_training
from vlmdata_train.model.decoding import Decoding

pytestmark = pytest.mark.whole

COLOURS = ("red", "green", "blue", "red")
FRAMES = [jpeg(drawing(colour, "circle")) for colour in COLOURS]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a model that reads two frames of a video, for one step."""
    folder = tmp_path_factory.mktemp("video")
    data = write_data(folder / "data", captions=0, conversations=16)
    model = {**MODEL, "video": {"frames": {"count": 2}}}
    return run_training(tiny_recipe(data, folder / "run", model=model, steps=1)).checkpoint


@pytest.fixture
def frames(tmp_path: Path) -> str:
    """Write the frames of a video as files whose numbers have one and two digits."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in zip((1, 2, 10, 20), FRAMES, strict=True):
        (folder / f"f{number}.jpg").write_bytes(frame)
    (folder / ".hidden").touch()
    return str(folder)


def test_frames_are_in_the_order_of_the_numbers_in_their_names(frames: str) -> None:
    assert [path.name for path in frames_in(frames)] == ["f1.jpg", "f2.jpg", "f10.jpg", "f20.jpg"]


def test_a_folder_of_frames_is_one_video_after_the_images(checkpoint: Path, frames: str) -> None:
    talk = Conversation.open(str(checkpoint), [f"{frames}/f2.jpg"], device="cpu", max_tokens=3, videos=[frames], fps=2)
    assert talk.media == [FRAMES[1], Video((FRAMES[0], FRAMES[3]), (0.0, 1.5))]
    talk.ask("What happens?")
    talk.ask("And then?")
    assert [message["role"] for message in talk.messages] == ["user", "assistant"] * 2
    assert talk.messages[2]["content"] == "And then?"


def test_without_a_video_part_a_chat_shows_each_frame_as_an_image(
    tmp_path: Path, frames: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", captions=0, conversations=16)
    plain = run_training(tiny_recipe(data, tmp_path / "run", steps=1)).checkpoint
    capsys.readouterr()
    talk = Conversation.open(str(plain), [], device="cpu", videos=[frames])
    assert talk.media == FRAMES
    expected = f"the model has no part `video`, so the 4 frames of {frames} are images\n"
    assert capsys.readouterr().err == expected


def test_a_seed_repeats_an_answer_and_another_seed_changes_it(checkpoint: Path) -> None:
    ways = [Decoding(temperature=2.0, seed=seed) for seed in (1, 1, 2)]
    talks = [Conversation.open(str(checkpoint), [], device="cpu", max_tokens=12, decoding=way) for way in ways]
    first, same, other = (talk.ask("What is it?") for talk in talks)
    assert first == same != other


def test_the_command_answers_each_line_with_the_given_decoding(
    checkpoint: Path, frames: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("What is it?\nAnd that?"))
    options = ["--video", frames, "--max-tokens", "4", "--repetition-penalty", "1.1"]
    assert main(["chat", str(checkpoint), *options, "--beams", "2"]) == 0
    talk = Conversation.open(
        str(checkpoint), [], device="cpu", max_tokens=4, decoding=Decoding(beams=2, repetition_penalty=1.1), videos=[frames]
    )
    expected = [talk.ask("What is it?"), talk.ask("And that?")]
    assert capsys.readouterr().out.split("\n")[:-1] == "\n".join(expected).split("\n")
    drawn = ["--temperature", "0.7", "--top-k", "50", "--top-p", "0.9", "--seed", "0", "--ask", "What is it?"]
    assert main(["chat", str(checkpoint), *options, *drawn]) == 0
    way = Decoding(temperature=0.7, top_k=50, top_p=0.9, repetition_penalty=1.1, seed=0)
    talk = Conversation.open(str(checkpoint), [], device="cpu", max_tokens=4, decoding=way, videos=[frames])
    assert capsys.readouterr().out == talk.ask("What is it?") + "\n"


def test_images_as_options_follow_those_given_as_arguments(
    checkpoint: Path, frames: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--image", f"{frames}/f2.jpg", "--image", f"{frames}/f10.jpg", "--max-tokens", "4", "--ask", "What differs?"]
    options = ["--top-p", "0.9", "--beams", "4", "--length-penalty", "0.5", "--seed", "1"]
    assert main(["chat", str(checkpoint), f"{frames}/f1.jpg", *asked, *options]) == 0
    files = [f"{frames}/f{number}.jpg" for number in (1, 2, 10)]
    way = Decoding(temperature=1.0, top_p=0.9, beams=4, length_penalty=0.5, seed=1)
    talk = Conversation.open(str(checkpoint), files, device="cpu", max_tokens=4, decoding=way)
    assert capsys.readouterr().out == talk.ask("What differs?") + "\n"


MISTAKES = [
    (["--top-p", "1.5", "--temperature", "1"], "--top-p must be more than 0 and at most 1, not 1.5"),
    (["--top-k", "0", "--temperature", "1"], "--top-k must be 1 or more, not 0"),
    (
        ["--top-p", "0.9", "--temperature", "0"],
        "--top-p needs a temperature above 0, because no token is drawn at temperature 0",
    ),
    (["--beams", "0"], "--beams must be from 1 to 64, not 0"),
    (["--length-penalty", "2"], "--length-penalty needs 2 beams or more, because it only compares answers of beam search"),
    (["--image", "text.jpg"], "cannot read text.jpg as an image: not_an_image"),
    (["--repetition-penalty", "0"], "--repetition-penalty must be from 0.01 to 100, not 0.0"),
    (["--fps", "0"], "--fps must be from 0.00001 to 100000, not 0.0"),
    (["--video", "none"], "--video none: there is no such folder. A video is a folder of image files, one for each frame"),
    (["--video", "empty"], "--video empty: the folder has no files. A video is a folder of image files, one for each frame"),
    (["empty"], "cannot read empty as an image: there is no such file. For a folder of frames, use --video empty"),
    (["text.jpg"], "cannot read text.jpg as an image: not_an_image"),
    (["half.jpg"], "cannot read half.jpg as an image: truncated"),
    (["--video", "mixed"], "cannot read mixed/b.txt as an image: not_an_image"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_mistake_is_reported_in_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    options: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "mixed"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mixed/a.jpg").write_bytes(FRAMES[0])
    for name in ("mixed/b.txt", "text.jpg"):
        (tmp_path / name).write_text("words")
    (tmp_path / "half.jpg").write_bytes(FRAMES[0][: len(FRAMES[0]) // 2])
    assert main(["chat", str(checkpoint), *options, "--ask", "?"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vlmdata train: {message}")


@pytest.mark.parametrize("verb", [["chat"], ["evaluate"]], ids=" ".join)
def test_an_exported_model_is_refused_with_what_to_use_instead(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    assert main([*verb, str(tmp_path), *(["data"] if verb == ["evaluate"] else [])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"vlmdata train: {tmp_path} is a model in transformers' format, not a checkpoint. Use the checkpoint from which it was"
        " exported, or load it with transformers"
    )


def test_ctrl_c_ends_a_chat_in_one_line(checkpoint: Path) -> None:
    command = [sys.executable, "-u", "-m", "vlmdata_train", "chat", str(checkpoint), "--max-tokens", "2"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("What is it?\n")
    process.stdin.flush()
    process.stdout.readline()  # the answer, after which the chat waits for the next question
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 130 and error.replace("> ", "") == "vlmdata train: stopped\n"
