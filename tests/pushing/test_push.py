"""A push uploads what the manifest lists, and deletes what is gone.

The Hub is the stand-in of `tests/hub_server.py`; the real Hub was not tried.
"""

import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from tests.exporting.made import content
from tests.pushing.pushed import REPO, export_of, forget_tar, in_repository, sha256, travelling
from vlmdata import RecipeError, push
from vlmdata.cli import main
from vlmdata.version import version

pytestmark = pytest.mark.whole


def test_the_repository_has_every_file_of_the_manifest_and_none_of_work(hub, out):
    done = push(out, REPO)
    assert in_repository(hub) == travelling(out) and (out / "work").is_dir()
    assert done["url"] == f"{hub.url}/datasets/{REPO}" and done["deleted"] == [] == done["replaced"]
    assert done["uploaded"] == len(done["files"]) == len(travelling(out)) and not hub.repos[REPO].private


def test_the_client_downloads_the_same_bytes(hub, out, tmp_path):
    push(out, REPO)
    found = Path(huggingface_hub.snapshot_download(REPO, repo_type="dataset", endpoint=hub.url, local_dir=tmp_path / "down"))
    names = {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file() and ".cache" not in path.parts}
    assert {name: (found / name).read_bytes() for name in names - {".gitattributes"}} == travelling(out)


LOAD = """
import datasets, sys
for name in sys.argv[1:]:
    loaded = datasets.load_dataset(name, split="train")
    columns = {"jpg", "png", "image"} & set(loaded.column_names)
    print(name, len(loaded), sorted({row[column].size for row in loaded for column in columns}))
"""


def test_datasets_loads_a_repository_by_its_name(hub, out, tmp_path):
    pushed = {"dataset": out, **{to: export_of(tmp_path, to) for to in ("parquet", "hf", "tars", "img2dataset")}}
    for name, folder in pushed.items():
        push(folder, f"jane/{name}")
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    environment |= {"HF_DATASETS_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", LOAD, *(f"jane/{name}" for name in pushed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    sizes = ["36 [(48, 48)]", *["5 [(8, 6)]"] * 4]
    assert done.stdout.splitlines() == [f"jane/{name} {size}" for name, size in zip(pushed, sizes, strict=True)]


def test_a_second_push_sends_nothing(hub, out):
    push(out, REPO)
    uploads, commits = hub.uploads(), len(hub.repos[REPO].commits)
    push(out, REPO)
    assert hub.uploads() == uploads and len(hub.repos[REPO].commits) == commits


def test_after_a_takedown_the_removed_tar_is_gone_and_the_tombstones_are_there(hub, out, capsys):
    push(out, REPO)
    before = sha256(out / "00000.tar")
    forget_tar(out, "00001.tar")
    assert main(["push", str(out), REPO]) == 0
    printed = capsys.readouterr()
    assert "deleted from the repository: 00001.tar" in printed.out
    assert "earlier commits and other branches may still hold the old files" in printed.err
    assert in_repository(hub) == travelling(out) and "forgotten/00000.json" in in_repository(hub)
    assert hub.uploads().count(before) == 1


def test_the_commit_and_the_last_line_say_what_was_done(hub, out, capsys):
    assert main(["push", str(out), REPO, "--private"]) == 0
    before = len(travelling(out))
    assert f"{hub.url}/datasets/{REPO} (private): {before} files, " in capsys.readouterr().out
    forget_tar(out, "00001.tar")
    push(out, REPO)
    first, second = hub.repos[REPO].messages
    assert first == f"Push with vlmdata {version()}: {before} files added"
    assert second.startswith(f"Push with vlmdata {version()}: 1 file added, ") and second.endswith(" replaced, 1 file deleted")


def test_a_branch_is_created_and_main_stays(hub, out):
    push(out, REPO, revision="v2")
    assert in_repository(hub, "v2") == travelling(out) and in_repository(hub) == {}


def test_private_creates_a_private_repository_and_refuses_a_public_one(hub, out):
    push(out, REPO, private=True)
    assert hub.repos[REPO].private
    push(out, "jane/dogs")
    with pytest.raises(RecipeError, match="jane/dogs exists and is public"):
        push(out, "jane/dogs", private=True)


@pytest.mark.parametrize("to", ["parquet", "hf", "tars", "energon", "mds", "img2dataset"])
def test_an_export_with_a_card_is_pushed(hub, tmp_path, to):
    folder = export_of(tmp_path, to)
    push(folder, REPO)
    assert in_repository(hub) == content(folder)
    done = push(folder, REPO)
    assert (done["uploaded"], done["replaced"], done["deleted"]) == (0, [], [])
