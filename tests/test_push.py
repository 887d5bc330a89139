"""A push uploads what the manifest lists, continues after a kill, deletes what is gone, and explains failures in one line.

The Hub is the stand-in of `tests/hub_server.py`; the real Hub was not tried.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from tests.engine.site import manifest, site
from tests.exporting.made import caption, content, make_dataset
from tests.hub_server import READER, TOKEN, HubServer, Stored
from tests.servers import nobody
from vlmdata import RecipeError, export, push, run
from vlmdata.cli import main
from vlmdata.errors import WorkFailed
from vlmdata.pushing.contents import Limits, contents
from vlmdata.takedown import forget

pytestmark = pytest.mark.whole
REPO = "jane/cats"


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push")
    with site(folder, 48, samples=20) as web:
        run(web.recipe, folder / "out", local=True, workers=1)
    return folder / "out"


@pytest.fixture
def out(built, tmp_path):
    return shutil.copytree(built, tmp_path / "out")


@pytest.fixture
def hub(monkeypatch):
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def travelling(out: Path) -> dict[str, bytes]:
    """Return the files of a dataset that must be in its repository."""
    names = [*manifest(out)["files"], "manifest.json"]
    names += [str(path.relative_to(out)) for path in out.glob("forgotten/*.json")]
    return {name: (out / name).read_bytes() for name in names}


def in_repository(hub: HubServer, revision: str = "main") -> dict[str, bytes]:
    return {name: data for name, data in hub.files(REPO, revision).items() if name != ".gitattributes"}


def export_of(folder: Path, to: str, **options: str) -> Path:
    """Export five samples in two tars to a folder with the name of the format, and return it."""
    if not (folder / "made").exists():
        make_dataset(folder / "made", map(caption, range(5)), layout="captions", per_shard=3)
    export(folder / "made", folder / to, to=to, options=options)
    return folder / to


def forget_tar(out: Path, name: str) -> None:
    """Forget all samples of a tar, which deletes it."""
    table = pq.read_table(out / "index.parquet").to_pylist()
    forget(out, key=[row["key"] for row in table if row["shard"] == name])


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
    assert "earlier commits of the repository still hold the old files" in printed.err
    assert in_repository(hub) == travelling(out) and "forgotten/00000.json" in in_repository(hub)
    assert hub.uploads().count(before) == 1


def test_files_that_a_user_added_to_the_repository_stay(hub, out):
    push(out, REPO)
    api = huggingface_hub.HfApi(endpoint=hub.url, token=TOKEN)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="LICENSE", repo_id=REPO, repo_type="dataset")
    push(out, REPO)
    assert in_repository(hub) == {**travelling(out), "LICENSE": b"mine"}


def test_a_repository_with_other_files_is_refused(hub, out):
    api = huggingface_hub.HfApi(endpoint=hub.url, token=TOKEN)
    api.create_repo(REPO, repo_type="dataset")
    api.upload_file(path_or_fileobj=b"theirs", path_in_repo="00000.tar", repo_id=REPO, repo_type="dataset")
    with pytest.raises(RecipeError, match=r"holds files that vlmdata did not push, such as 00000\.tar"):
        push(out, REPO)
    assert in_repository(hub) == {"00000.tar": b"theirs"}


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


def test_an_export_replaces_all_files_of_another_format(hub, tmp_path):
    made = [export_of(tmp_path, to) for to in ("energon", "mds", "img2dataset", "tars", "hf", "parquet")]
    for folder in made:
        push(folder, REPO)
        assert in_repository(hub) == content(folder)


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


def test_the_token_is_sent_and_never_printed_or_stored(hub, out, capsys):
    push(out, REPO)
    printed = capsys.readouterr()
    assert hub.tokens <= {TOKEN, ""} and TOKEN not in printed.out + printed.err
    assert not [path for path in out.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize(("status", "code"), [(401, 2), (403, 2), (400, 1), (429, 1), (507, 1)])
def test_a_token_and_a_signature_that_the_hub_repeats_are_not_printed(hub, out, capsys, status, code):
    message = f"bad {TOKEN} for https://bucket.example/a?X-Amz-Signature=5ecret {'x' * 400}{TOKEN}"
    hub.fail("POST", "/api/repos/create", status, message=message, times=9, Retry_After="3600")
    assert main(["push", str(out), REPO, "--json"]) == code
    printed = capsys.readouterr()
    assert "bad REDACTED for https://bucket.example/a?X-Amz-Signature=REDACTED xxx" in printed.err
    assert TOKEN not in printed.out + printed.err and "5ecret" not in printed.out + printed.err


@pytest.mark.parametrize("token", ["hf_a b", "hf_ä"])
def test_a_token_with_a_wrong_character_is_one_line_without_it(hub, out, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(RecipeError, match="the token of the Hub has a character that no token has") as caught:
        push(out, REPO)
    assert "hf_" not in str(caught.value) and hub.requests == []


FAILURES = [
    (("POST", "/api/repos/create", 401), RecipeError, "does not accept the token.*hf auth login.*HF_TOKEN"),
    (("POST", "/api/repos/create", 403), RecipeError, "may not write to jane/cats.*Use a token with write access"),
    (("POST", "/preupload/", 403), RecipeError, "may not write to jane/cats"),
    (("POST", "/preupload/", 404), RecipeError, "there is no dataset repository jane/cats"),
    (("POST", "/objects/batch", 413), WorkFailed, "no room for the upload.*Free storage"),
    (("PUT", "/lfs/", 400), WorkFailed, "refuses the upload"),
    (("POST", "/commit/", 412), WorkFailed, "changed during the upload"),
    (("POST", "/commit/", 413), WorkFailed, "no room for the upload"),
]


@pytest.mark.parametrize(("fault", "error", "message"), FAILURES)
def test_a_refusal_is_one_line_with_the_fix(hub, out, fault, error, message):
    hub.fail(*fault)
    with pytest.raises(error, match=message) as caught:
        push(out, REPO)
    assert "\n" not in str(caught.value)
    push(out, REPO)
    assert in_repository(hub) == travelling(out)


@pytest.mark.parametrize(
    ("method", "part"), [("POST", "/api/repos/create"), ("POST", "/preupload/"), ("POST", "/commit/"), ("PUT", "/lfs/")]
)
@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry_After": "0"}), (500, {})])
def test_a_busy_hub_is_asked_again(hub, out, method, part, status, headers):
    hub.fail(method, part, status, **headers)
    push(out, REPO)
    assert in_repository(hub) == travelling(out)


def test_a_long_wait_is_left_to_the_user(hub, out):
    hub.fail("POST", "/api/repos/create", 429, times=1, Retry_After="3600")
    with pytest.raises(WorkFailed, match=r"limits requests.*Wait 3600 s and run the same command again"):
        push(out, REPO)


def test_a_connection_that_is_cut_during_an_upload_is_opened_again(hub, out):
    hub.cut("PUT", "/lfs/")
    push(out, REPO)
    assert in_repository(hub) == travelling(out)


def test_a_cut_commit_is_one_line_and_the_same_push_continues(hub, out):
    hub.cut("POST", "/commit/")
    with pytest.raises(WorkFailed, match=r"does not answer.*run the same command again; it continues"):
        push(out, REPO)
    sent = len(hub.uploads())
    push(out, REPO)
    assert in_repository(hub) == travelling(out) and len(hub.uploads()) == sent


def test_a_commit_whose_answer_was_lost_is_found_in_the_repository(hub, out):
    hub.lose_answer("POST", "/commit/")
    done = push(out, REPO)
    assert done["commit"] == hub.repos[REPO].branches["main"] and in_repository(hub) == travelling(out)
    sent, commits = len(hub.requests), list(hub.repos[REPO].commits)
    done = push(out, REPO)
    assert (done["uploaded"], done["replaced"], done["deleted"], done["commit"]) == (0, [], [], commits[-1])
    assert in_repository(hub) == travelling(out) and list(hub.repos[REPO].commits) == commits
    assert {method for method, _ in hub.requests[sent + 1 :]} == {"GET", "HEAD"}  # after the one that creates the repository


def test_a_commit_that_the_hub_made_but_called_failed_is_a_success(hub, out):
    hub.fail("POST", "/commit/", 504, is_done=True)
    done = push(out, REPO)
    assert done["commit"] == hub.repos[REPO].branches["main"] and in_repository(hub) == travelling(out)
    forget_tar(out, "00001.tar")
    hub.fail("POST", "/commit/", 500, is_done=True)
    assert push(out, REPO)["deleted"] == ["00001.tar"] and in_repository(hub) == travelling(out)


def test_a_commit_of_someone_else_after_a_failed_one_is_an_error(hub, out):
    def other():
        repo = hub.repos[REPO]
        repo.commit("main", {**repo.commits[repo.branches["main"]], "LICENSE": Stored(b"theirs", False)})

    hub.cut("POST", "/commit/", before=other)
    with pytest.raises(WorkFailed, match="does not answer"):
        push(out, REPO)
    assert in_repository(hub) == {"LICENSE": b"theirs"}


def test_a_killed_push_continues_without_sending_a_file_twice(hub, out):
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "vlmdata", "push", str(out), REPO]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    hub.cut("POST", "/commit/", before=lambda: os.kill(child.pid, signal.SIGKILL))
    assert child.wait() == -signal.SIGKILL
    assert in_repository(hub) == {} and len(hub.uploads()) >= 4
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["deleted"] == [] and in_repository(hub) == travelling(out)
    assert len(hub.uploads()) == len(set(hub.uploads()))


def test_a_dataset_that_changes_during_the_upload_is_not_committed(hub, out):
    def change():
        path = out / "manifest.json"
        path.write_text(path.read_text().replace("\n", " \n", 1))

    hub.cut("PUT", "/lfs/", before=change)
    with pytest.raises(RecipeError, match="was changed during the upload"):
        push(out, REPO)
    assert in_repository(hub) == {}


def test_a_file_with_other_content_than_in_the_manifest_is_not_sent(hub, out):
    data = bytearray((out / "00001.tar").read_bytes())
    data[600] ^= 1
    (out / "00001.tar").write_bytes(data)
    with pytest.raises(RecipeError, match=r"00001.tar: the SHA-256 differs from the one in the manifest"):
        push(out, REPO)
    assert hashlib.sha256(data).hexdigest() not in hub.uploads() and in_repository(hub) == {}


def test_without_a_token_nothing_is_requested(hub, out, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(RecipeError, match=r"push needs a token of the Hub\. Log in with `hf auth login`, or set HF_TOKEN"):
        push(out, REPO)
    assert hub.requests == []


def test_a_token_that_only_reads_is_refused(hub, out, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(RecipeError, match="may not write to jane/cats"):
        push(out, REPO)


def test_a_network_that_is_down_is_one_line(hub, out, monkeypatch):
    with nobody() as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        with pytest.raises(WorkFailed, match=f"the Hub at {address} does not answer.*Check the network"):
            push(out, REPO)


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


def test_offline_mode_is_named(hub, out, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RecipeError, match="HF_HUB_OFFLINE"):
        push(out, REPO)
