"""A push refuses before any request what is no dataset, what must not leave, and what the Hub does not take."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from tests.exporting.made import caption, make_dataset
from tests.pushing.pushed import REPO, export_of, in_repository
from vlmdata import RecipeError, push
from vlmdata.cli import main
from vlmdata.pushing.contents import Limits, contents
from vlmdata.takedown import forget

pytestmark = pytest.mark.whole


@pytest.mark.parametrize("to", ["folder", "img2dataset"])
def test_an_export_without_a_card_is_refused_with_the_formats_that_have_one(hub, tmp_path, to):
    folder = export_of(tmp_path, to, **({"form": "files"} if to == "img2dataset" else {}))
    with pytest.raises(
        RecipeError, match=r"nor an export with a card\..*an export to one of parquet, hf, tars, .*form=parquet"
    ):
        push(folder, REPO)
    assert hub.requests == []


def test_a_dry_run_lists_files_and_sends_nothing(hub, out, capsys):
    assert main(["push", str(out), REPO, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert f"{(out / '00000.tar').stat().st_size:,}  00000.tar" in printed and "work/" not in printed
    assert hub.requests == []


def test_a_file_with_other_content_than_in_the_manifest_is_not_sent(hub, out):
    data = bytearray((out / "00001.tar").read_bytes())
    data[600] ^= 1
    (out / "00001.tar").write_bytes(data)
    with pytest.raises(RecipeError, match=r"00001.tar: the SHA-256 differs from the one in the manifest"):
        push(out, REPO)
    assert hashlib.sha256(data).hexdigest() not in hub.uploads() and in_repository(hub) == {}


NO_NAMES = ["cats", "jane/cats/more", "datasets/jane/cats", "https://huggingface.co/datasets/jane/cats", "a b/c", "jane/"]
NO_NAMES += ["/cats", "../cats", "jane/..", "jane/cats.git", "jane/.cats", "jane/cats-", "jane/a--b", f"jane/{'a' * 97}", "j/ä"]


@pytest.mark.parametrize("name", ["jane_/_cats", "j/c", "Jane-1/cats.v2", f"jane/{'a' * 96}"])
def test_a_name_that_the_client_takes_is_taken(hub, out, name):
    huggingface_hub.utils.validate_repo_id(name)
    assert push(out, name, dry_run=True)["repo"] == name


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_name_that_is_no_repository_is_refused(out, name):
    with pytest.raises(RecipeError, match=r"is no name of a repository\. Write USER/NAME"):
        push(out, name)


@pytest.mark.parametrize(
    "name", ["", "a b", "..", ".a", "-a", "a/", "a//b", "a..b", "refs/pr/1", "a.lock", "a\n", "a~1", "a:b"]
)
def test_a_name_that_is_no_branch_is_refused(hub, out, name):
    with pytest.raises(RecipeError, match="is no name of a branch"):
        push(out, REPO, revision=name)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["v2", "v2/more", "a", "2026-01-01", "größer", "a.b", "a@b"])
def test_a_name_of_a_branch_is_taken(hub, out, name):
    assert push(out, REPO, revision=name, dry_run=True)["revision"] == name


def test_a_name_of_a_file_that_is_not_utf_8_is_refused(hub, tmp_path):
    folder = export_of(tmp_path, "tars")
    (folder / os.fsdecode(b"\xff.txt")).write_text("")
    with pytest.raises(RecipeError, match=r"has a name that is not UTF-8\. Rename or remove it") as caught:
        push(folder, REPO)
    assert str(caught.value).isprintable() and hub.requests == []


def test_an_unfinished_or_damaged_dataset_is_refused(hub, out):
    (out / "00001.tar").write_bytes(b"short")
    with pytest.raises(RecipeError, match=r"is damaged: 00001\.tar has 5 bytes"):
        push(out, REPO)
    (out / "manifest.json").unlink()
    with pytest.raises(RecipeError, match="is not a finished dataset"):
        push(out, REPO)
    assert hub.requests == []


def test_a_folder_of_something_else_and_an_address_are_refused(hub, tmp_path):
    (tmp_path / "README.md").write_text("---\ntags: [other]\n---\n")
    with pytest.raises(RecipeError, match="neither a finished dataset nor an export with a card"):
        push(tmp_path, REPO)
    with pytest.raises(RecipeError, match="push reads a folder on this machine, not an address"):
        push("s3://bucket/out", REPO)
    with pytest.raises(RecipeError, match="it does not exist"):
        push(tmp_path / "missing", REPO)
    assert hub.requests == []


def listing(folder: Path, names: list[str]) -> Path:
    """Write a dataset whose manifest also lists `names`, which do not exist. Return its folder."""
    make_dataset(folder, map(caption, range(5)), layout="captions", per_shard=1)
    path = folder / "manifest.json"
    found = json.loads(path.read_text())
    found["files"] |= {name: {"bytes": 1, "samples": 1, "sha256": "0" * 64} for name in names}
    path.write_text(json.dumps(found))
    return folder


def test_more_files_than_the_hub_takes_are_refused_before_any_request(hub, tmp_path):
    tars = listing(tmp_path / "tars", [f"{number:05d}.tar" for number in range(10_000)])
    with pytest.raises(RecipeError, match=r"has 10,001 files, and a folder on the Hub takes at most 10,000\. Build it"):
        push(tars, REPO)
    folders = listing(tmp_path / "all", [f"{number % 3}/{number:05d}.tar" for number in range(24_995)])
    with pytest.raises(RecipeError, match=r"has 25,001 files, and a commit on the Hub takes at most 25,000\. Build it"):
        push(folders, REPO)
    assert hub.requests == []


def test_the_limits_of_an_export_are_those_of_the_hub(tmp_path):
    folder = export_of(tmp_path, "parquet")
    assert len(contents(folder, Limits(files=3, in_folder=2))) == 3
    with pytest.raises(RecipeError, match=r"has 3 files, and a commit on the Hub takes at most 2\. Export a dataset with more"):
        contents(folder, Limits(files=2))
    with pytest.raises(RecipeError, match="parquet/data has 2 files, and a folder on the Hub takes at most 1"):
        contents(folder, Limits(in_folder=1))


def test_a_file_that_is_too_large_for_the_hub_is_refused(hub, tmp_path):
    folder = export_of(tmp_path, "tars")
    os.truncate(folder / "00001.tar", 500 * 10**9 + 1)  # without blocks on the disk
    with pytest.raises(RecipeError, match=r"00001\.tar has 500 GB.*at most 500 GB\. Export a dataset with fewer samples"):
        push(folder, REPO)
    assert hub.requests == []


@pytest.mark.parametrize("is_dataset", [True, False])
def test_a_link_to_a_place_outside_is_not_uploaded(hub, out, tmp_path, is_dataset):
    (tmp_path / "secret").write_text("mine")
    folder = out if is_dataset else export_of(tmp_path, "tars")
    if is_dataset:
        forget(folder, url=["https://example.org/1", "https://example.org/2"])
        shutil.copy(folder / "forgotten" / "00000.json", folder / "forgotten" / "00001.json")
        (folder / "forgotten" / "00000.json").unlink()
    (folder / ("forgotten/00000.json" if is_dataset else "left_out.log")).symlink_to(tmp_path / "secret")
    with pytest.raises(RecipeError, match=r"is a link to a place outside of .*Put the file there, or remove the link"):
        push(folder, REPO)
    assert hub.requests == []


@pytest.mark.parametrize("target", [".", "..", "missing"])
def test_a_link_to_a_folder_or_to_nothing_is_refused(hub, tmp_path, target):
    folder = export_of(tmp_path, "tars")
    (folder / "more").symlink_to(target)
    with pytest.raises(RecipeError, match=r"more is a link to"):
        push(folder, REPO)
    assert hub.requests == []


def test_a_link_to_a_file_of_the_same_folder_travels_as_the_file(hub, tmp_path):
    folder = export_of(tmp_path, "tars")
    (folder / "copy.tar").symlink_to("00000.tar")
    push(folder, REPO)
    assert in_repository(hub)["copy.tar"] == (folder / "00000.tar").read_bytes()


@pytest.mark.parametrize("name", ["README.md", "manifest.json", "pipe"])
def test_a_pipe_is_refused_and_blocks_nothing(hub, tmp_path, name):
    folder = export_of(tmp_path, "tars")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(RecipeError, match=rf"{name} is a folder, a pipe, a socket or a device, not a file\. Remove it"):
        push(folder, REPO)
    assert hub.requests == []
