"""A target that an export cannot write is refused before any work, and a full disk names it."""

import os
import resource
from contextlib import contextmanager

import pytest

from tests.exporting.made import caption, content, make_dataset
from vlmdata.export_dataset import export
from vlmdata.step import RecipeError


@pytest.fixture
def out(tmp_path, monkeypatch):
    make_dataset(tmp_path / "out", map(caption, range(3)), layout="captions")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("dangling", "already exists as a link to a place that does not exist"),
        ("dangling/new", "dangling is not a folder"),
        ("file", "already exists"),
        ("file/new", "file is not a folder"),
        ("out", "already exists"),
        ("out/new", "is inside the dataset"),
        ("new/../out/deep/er", "is inside the dataset"),
        ("link/new", "is inside the dataset"),
        ("/proc/new", "/proc does not allow it"),
        ("a" * 224, "the name is too long. Name a folder with at most 223 bytes"),
        ("é" * 112, "the name is too long"),
        ("a" * 256 + "/new", "the name is too long"),
        ("a\udcff", r"'a\udcff': the name is not UTF-8"),
        ("a\udcff/new", r"'a\udcff/new': the name is not UTF-8"),
        ("a\nb", "control character"),
        ("a\0b", "control character"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_a_target_that_cannot_be_written_is_refused_before_work(tmp_path, out, target, words):
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "file").touch()
    before = sorted(os.listdir(tmp_path)), content(out)
    with pytest.raises(RecipeError) as caught:
        export(out, target)
    assert words in str(caught.value) and str(caught.value).isprintable()
    assert (sorted(os.listdir(tmp_path)), content(out)) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path, out):
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(RecipeError, match="closed does not allow it"):
        export(out, "closed/new")


def test_the_longest_name_of_a_target_is_written(tmp_path, out):
    assert export(out, tmp_path / ("a" * 223)) == 3


@contextmanager
def small_files(most: int):
    """Let the system refuse longer files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("to", ["parquet", "tars", "hf"])
def test_a_full_disk_names_the_target_and_the_export_resumes(tmp_path, out, to):
    with small_files(50), pytest.raises(OSError, match=r"/target'$") as caught:
        export(out, tmp_path / "target", to=to)
    assert "\n" not in str(caught.value) and not (tmp_path / "target").exists()
    assert export(out, tmp_path / "target", to=to) == 3
    export(out, tmp_path / "other", to=to)
    assert content(tmp_path / "target") == content(tmp_path / "other")
