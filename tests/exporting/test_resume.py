"""An export that is killed or interrupted is continued by the same command, and ends with the same files."""

import json
import os
import signal
import subprocess
import sys
import warnings

import pytest

from tests.exporting.made import IMAGE, caption, chat, content, document, make_dataset
from vlmdata.cli import main
from vlmdata.export_dataset import export
from vlmdata.exports import find
from vlmdata.step import RecipeError

FORMATS = [
    ("mds", {"size_limit": 400}),
    ("messages", {"form": "placeholders"}),
    ("mmc4", {"images": "base64"}),
    ("parquet", {}),
    pytest.param("energon", {"val": 0.5}, marks=pytest.mark.slow),
    pytest.param("folder", {}, marks=pytest.mark.slow),
    pytest.param("hf", {}, marks=pytest.mark.slow),
    pytest.param("img2dataset", {}, marks=pytest.mark.slow),
    pytest.param("img2dataset", {"form": "files"}, marks=pytest.mark.slow),
    pytest.param("llava", {}, marks=pytest.mark.slow),
    pytest.param("mds", {"compression": "zstd", "hashes": ["sha1"]}, marks=pytest.mark.slow),
    pytest.param("messages", {"form": "parquet"}, marks=pytest.mark.slow),
    pytest.param("mmc4", {}, marks=pytest.mark.slow),
    pytest.param("obelics", {}, marks=pytest.mark.slow),
]


@pytest.fixture
def chats(tmp_path):
    make_dataset(tmp_path / "out", map(chat, range(6)), layout="documents", per_shard=2)
    return tmp_path / "out"


@pytest.mark.whole
@pytest.mark.parametrize(("to", "options"), FORMATS)
def test_an_export_killed_at_any_change_is_continued_to_the_same_files(chats, tmp_path, to, options):
    (tmp_path / "work").mkdir()
    out = chats
    if find(to).holds == ("captions",):
        out = tmp_path / "captions"
        make_dataset(out, map(caption, range(4)), layout="captions", per_shard=2)
    elif "documents" in find(to).holds:
        out = tmp_path / "documents"
        make_dataset(out, (document(n, [IMAGE, f"text {n}"]) for n in range(4)), layout="documents", per_shard=2)
    command = [sys.executable, "-m", "tests.exporting.kills", str(out), str(tmp_path / "work"), to, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 10


class Stop(Exception):
    pass


def stopped(out, target, after: int = 1, **options) -> None:
    """Export, and stop when `after` shards are written."""
    calls = []

    def progress(done: int, samples: int) -> None:
        calls.append(done)
        if len(calls) == after:
            raise Stop

    with pytest.raises(Stop):
        export(out, target, progress=progress, **options)


def test_finished_shards_are_not_written_again(chats, tmp_path):
    stopped(chats, tmp_path / "to", after=2)
    (draft,) = tmp_path.glob(".to.export-*")
    written = {path: path.stat().st_mtime_ns for path in draft.rglob("*.parquet")}
    assert len(written) == 2 and not (tmp_path / "to").exists()
    assert export(chats, tmp_path / "to") == 6
    after = {draft / "files" / path.relative_to(tmp_path / "to"): path.stat().st_mtime_ns for path in tmp_path.rglob("to/*/*")}
    assert len(after) == 3 and after.items() >= written.items()
    assert not draft.exists()


def test_a_draft_of_other_options_or_of_another_format_is_removed(chats, tmp_path):
    stopped(chats, tmp_path / "to", to="parquet")
    stopped(chats, tmp_path / "other", to="parquet")
    assert export(chats, tmp_path / "to", to="folder") == 6
    assert [path.name[:14] for path in tmp_path.glob(".*")] == [".other.export-"]


def test_a_draft_of_a_dataset_that_changed_is_not_continued(chats, tmp_path):
    stopped(chats, tmp_path / "to")
    manifest = json.loads((chats / "manifest.json").read_text())
    (chats / "manifest.json").write_text(json.dumps({**manifest, "rows": 7}))
    export(chats, tmp_path / "expected")
    calls = []
    export(chats, tmp_path / "to", progress=lambda *numbers: calls.append(numbers))
    assert calls == [(2, 6), (4, 6), (6, 6)]
    assert content(tmp_path / "to") == content(tmp_path / "expected")


def test_a_dataset_that_changes_during_the_export_is_refused(chats, tmp_path):
    def progress(done: int, samples: int) -> None:
        manifest = json.loads((chats / "manifest.json").read_text())
        (chats / "manifest.json").write_text(json.dumps({**manifest, "rows": manifest["rows"] + 1}))

    with pytest.raises(RecipeError, match="was changed during the export"):
        export(chats, tmp_path / "to", progress=progress)
    assert not (tmp_path / "to").exists()


def test_two_exports_to_one_folder_do_not_mix(chats, tmp_path):
    """The first export waits in a pipe until the second has been refused."""
    code = "import sys\nfrom vlmdata import export\n"
    code += "export(sys.argv[1], sys.argv[2], progress=lambda *_: print('shard', flush=True) or sys.stdin.readline())"
    command = [sys.executable, "-c", code, str(chats), str(tmp_path / "to")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "shard\n"
        with pytest.raises(RecipeError, match=rf"to is being written by another export \(.*{first.pid}.*\)\. Wait"):
            export(chats, tmp_path / "to")
        first.communicate("\n" * 9)
        assert first.returncode == 0
    with pytest.raises(RecipeError, match="already exists"):
        export(chats, tmp_path / "to")


def test_an_interrupted_command_is_continued_by_the_same_command(chats, tmp_path, capfd):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = "import sys\nfrom vlmdata import export\n"
    code += "export(sys.argv[1], sys.argv[2], to='messages', progress=lambda *_: open(sys.argv[3]).read())"
    command = [sys.executable, "-c", code, str(chats), str(tmp_path / "to"), str(fifo)]
    with subprocess.Popen(command) as first, fifo.open("w"):  # the pipe opens when the first shard is finished
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert main(["export", str(chats), str(tmp_path / "to"), "--to", "messages"]) == 0
    assert capfd.readouterr().out == f"{tmp_path / 'to'}: 6 samples as messages\n"
    assert len((tmp_path / "to" / "messages.jsonl").read_text().splitlines()) == 6


def test_samples_of_another_kind_are_listed_and_counted(tmp_path):
    samples = [chat(0), document(1, ["a", b"x"]), chat(2), document(3, ["b"])]
    make_dataset(tmp_path / "out", samples, layout="documents", per_shard=3)
    with pytest.warns(
        UserWarning, match="2 samples are left out, because the format 'messages' cannot hold them: see left_out"
    ):
        assert export(tmp_path / "out", tmp_path / "to", to="messages") == 2
    reason = "it is one of documents, and the format holds conversations"
    listed = f"{samples[1][0]}\t{reason}\n{samples[3][0]}\t{reason}\n"
    assert (tmp_path / "to" / "left_out.log").read_text() == listed


def test_a_format_that_can_hold_no_sample_is_refused(tmp_path):
    talks = [chat(n, "a", "no call", roles=["user", "assistant"], turns=[None, {"kind": "tool_call"}]) for n in range(3)]
    make_dataset(tmp_path / "out", talks, layout="documents")
    with pytest.raises(
        RecipeError, match=f"'messages' can hold none of the samples of .* {talks[0][0]}: a tool call is not JSON"
    ):
        export(tmp_path / "out", tmp_path / "to", to="messages")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("to", "layout", "made", "says"),
    [
        (
            "messages",
            "captions",
            caption,
            "holds captions, and the format 'messages' holds conversations. Formats for captions ",
        ),
        ("messages", "documents", lambda n: document(n, ["a", b"x"]), "holds documents, and the format 'messages' holds conv"),
        ("obelics", "documents", chat, "holds conversations, and the format 'obelics' holds documents"),
        ("mmc4", "captions", caption, "holds captions, and the format 'mmc4' holds documents"),
    ],
)
def test_a_dataset_of_another_kind_is_refused_before_work(tmp_path, to, layout, made, says):
    make_dataset(tmp_path / "out", map(made, range(2)), layout=layout)
    with pytest.raises(RecipeError, match=says) as caught:
        export(tmp_path / "out", tmp_path / "to", to=to)
    assert "parquet" in str(caught.value) and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_unknown_option_of_a_format_is_refused_before_work(chats, tmp_path):
    with pytest.raises(RecipeError, match=r"^export --to folder: Folder has no parameter 'form'"):
        export(chats, tmp_path / "to", to="folder", options={"form": "parquet"})


def test_an_export_of_no_samples_is_an_empty_folder(tmp_path):
    make_dataset(tmp_path / "out", [], layout="captions")
    with warnings.catch_warnings(action="error"):
        assert export(tmp_path / "out", tmp_path / "to", to="messages") == 0
    assert list((tmp_path / "to").iterdir()) == []
