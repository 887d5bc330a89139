"""`vlmdata check --out` finds an output folder or bucket that a run cannot use, before any work starts."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.buckets import bucket, names
from tests.preflight.checking import check, lines_of_run
from tests.servers import nobody
from tests.sources.pictures import picture
from vlmdata.cli import main
from vlmdata.sizes import megabytes

SOURCE = {"type": "url_list", "path": "a.csv"}


@pytest.fixture(autouse=True)
def listing(tmp_path):
    (tmp_path / "a.csv").write_text("url,caption\n" + "https://e.example/1.jpg,a cat\n" * 100)


@pytest.mark.parametrize(
    ("out", "status", "words"),
    [
        ("new", 0, ""),
        ("new/deeper", 0, ""),
        ("empty", 0, ""),
        ("other", 2, "--out other holds other files (b.jpg and 1 more). Give a new or empty folder"),
        ("a.csv", 2, "--out a.csv is a file"),
        ("a.csv/out", 2, "a.csv is not a folder"),
        ("/proc/out", 2, "--out /proc/out cannot be written"),
        ("a\nb", 2, "the name has a control character"),
        ("out{1}", 0, "readers of tars expand { } in names"),
        ("foo://bucket/out", 2, "Protocol not known: foo"),
        ("s3://bucket/out", 0, ""),
    ],
)
def test_an_output_that_cannot_be_used_is_named(tmp_path, capsys, out, status, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.jpg").touch()
    (tmp_path / "other" / "c.jpg").touch()
    assert check(tmp_path, SOURCE, [{"download": {"contact": "a@b.org"}}, "resize"], "--out", out) == status
    written = capsys.readouterr().err
    assert words in written and bool(written) == bool(words)


def test_an_output_inside_the_folder_of_the_source_is_refused_if_it_would_be_read(tmp_path, capsys):
    (tmp_path / "lists").mkdir()
    os.rename("a.csv", "lists/a.csv")
    for path, status in (("lists", 2), ("lists/*.csv", 0), ("lists/a.csv", 0)):
        assert check(tmp_path, {**SOURCE, "path": path}, [{"download": {"contact": "a@b.org"}}], "--out", "lists/out") == status
    assert "is inside lists, so the source would read the files of the dataset as its own" in capsys.readouterr().err
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"\xff\xd8\xff")
    assert check(tmp_path, {"type": "files", "path": "pictures"}, ["resize"], "--out", "pictures/out") == 0


@contextlib.contextmanager
def disk(folder: Path, options: str) -> Iterator[None]:
    """Mount a small new file system at a folder."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "vlmdata-test", str(folder)], capture_output=True).returncode:
        pytest.skip("may not mount here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_folder_without_write_permission_is_named(tmp_path, capsys):
    folder = tmp_path / "closed"
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:  # root is refused only by the file system itself
            stack.enter_context(disk(folder, "size=100m,ro"))
        else:
            folder.mkdir(mode=0o555)
        assert check(tmp_path, SOURCE, [{"download": {"contact": "a@b.org"}}], "--out", "closed/out") == 2
    assert f"--out closed/out cannot be written: {folder} does not allow it" in capsys.readouterr().err


def test_a_disk_that_is_much_too_small_is_refused_with_the_estimate(tmp_path, capsys):
    with disk(tmp_path / "disk", "size=200k"):
        steps = [{"download": {"contact": "a@b.org"}}, {"resize": {"mode": "no"}}]
        assert check(tmp_path, SOURCE, steps, "--out", "disk/out") == 2
        [line] = capsys.readouterr().err.splitlines()
        assert "at most about 20.2 MB" in line and "100.0 kB (a typical size)" in line and "Free some space" in line
        assert lines_of_run("r.yaml", "disk/out", capsys) == [line]
        Path("disk/out/work").mkdir(parents=True)
        assert check(tmp_path, SOURCE, steps, "--out", "disk/out") == 0
        assert "Rows that are dropped need less" in capsys.readouterr().err


def test_the_estimate_counts_rows_and_typical_bytes(tmp_path, capsys):
    assert check(tmp_path, SOURCE, [{"download": {"contact": "a@b.org"}}, {"resize": {"size": 384}}], "--out", "out") == 0
    assert "estimate: the dataset takes at most about 8.3 MB while it is built: 101 rows of 41.3 kB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "need"),
    [
        ({"type": "llava_json", "path": "chats.json", "images": "photos"}, 2 * 150_000 + 2 * 1000),
        ({"type": "messages", "path": "chats.json", "folder": "photos"}, 2 * 150_000 + 2 * 1000),
        ({"type": "files", "path": "photos"}, 2 * 150_000),
        ({"type": "files", "path": "photos", "table": "list.csv"}, 2 * 150_000 + 2 * 1000),
    ],
    ids=["llava_json", "messages", "folder", "table"],
)
def test_the_estimate_counts_the_images_that_are_packed_again(tmp_path, capsys, source, need):
    """A photo of 100 kB stays as it is, and one of 25 kB may double."""
    (tmp_path / "photos").mkdir()
    for name, size in (("a.jpg", 100_000), ("b.jpg", 25_000)):
        (tmp_path / "photos" / name).write_bytes(picture(8, 6, "JPEG").ljust(size, b"x"))
    turns = [{"from": "human", "value": "<image>a"}, {"from": "gpt", "value": "b"}]
    (tmp_path / "chats.json").write_text(json.dumps([{"image": "a.jpg", "conversations": turns}]).ljust(500))
    (tmp_path / "photos" / "list.csv").write_text("file_name,caption\na.jpg,a\n".ljust(499) + "\n")
    layout = {"layout": "captions" if source["type"] == "files" else "documents"}
    (tmp_path / "r.yaml").write_text(json.dumps({"source": source, "steps": [{"resize": {"size": 512}}], "shards": layout}))
    assert main(["check", "r.yaml", "--out", "out"]) == 0
    assert f"at most about {megabytes(need)} while" in capsys.readouterr().out


def forget_connections() -> None:
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.whole
def test_a_bucket_that_cannot_be_written_gives_one_line(tmp_path, capsys, monkeypatch):
    steps = [{"download": {"contact": "a@b.org", "allowed_hosts": ["e.example"]}}]
    with bucket() as address, nobody() as silent:
        assert check(tmp_path, SOURCE, steps, "--out", f"{address}/out") == 0
        check(tmp_path, SOURCE, steps, "--out", "s3://no-such-bucket/out", "--deep")
        assert lines_of_run("r.yaml", "s3://no-such-bucket/out", capsys)[-1].endswith("The specified bucket does not exist")
        endpoint = os.environ["AWS_ENDPOINT_URL"]
        monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
        forget_connections()
        [line] = lines_of_run("r.yaml", f"{address}/out", capsys)
        assert "cannot reach this store: Invalid endpoint: nonsense. Check AWS_ENDPOINT_URL" in line
        monkeypatch.setenv("AWS_ENDPOINT_URL", silent)
        forget_connections()
        [line] = lines_of_run("r.yaml", f"{address}/out", capsys)
        assert (
            f"cannot reach this store: nothing answers at {silent.removeprefix('http://')} (Connection refused). Check" in line
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("HOME", str(tmp_path))
        forget_connections()
        [line] = lines_of_run("r.yaml", f"{address}/out", capsys)
        assert "Unable to locate credentials. Set AWS_ACCESS_KEY_ID" in line


@pytest.mark.whole
def test_deep_writes_reads_and_deletes_a_file_in_the_bucket(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("url,caption\n")
    with bucket() as address:
        assert check(tmp_path, SOURCE, [{"download": {"contact": "a@b.org"}}], "--out", f"{address}/out", "--deep") == 0
        assert f"{address}/out: a file could be written, read and deleted" in capsys.readouterr().out
        assert names(address) == []


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nohost.invalid:6379", "127.0.0.1:port"])
def test_a_ray_cluster_that_does_not_answer_gives_one_line_at_once(tmp_path, capsys, address):
    Path("r.yaml").write_text(
        '{"source": {"type": "url_list", "path": "a.csv"}, "steps": [{"download": {"contact": "a@b.org"}}]}'
    )
    assert main(["run", "r.yaml", "--out", "out", "--address", address]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"--address {address}: " in line
    assert not Path("out").exists()
