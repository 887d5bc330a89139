"""A dataset repository on the Hugging Face Hub, through the Hub's own client.

Large files are uploaded first. One commit then adds and deletes everything, so readers see the old or the new dataset. A file
that was uploaded before a kill is not uploaded again, because the Hub keeps it under its SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vlmdata.errors import RecipeError, WorkFailed
from vlmdata.pushing.contents import OWN, LocalFile

T = TypeVar("T")
MAIN = "main"
ATTEMPTS = 5  # for requests that the client itself does not repeat
LONGEST_WAIT_S = 60.0
BATCH_FILES, BATCH_BYTES = 20, 1 << 29  # files that are uploaded together


@dataclass(frozen=True)
class RemoteFile:
    """A file of the repository. `sha256` is None for a small file, which git itself stores under `git_id`."""

    bytes: int
    sha256: str | None
    git_id: str

    def equals(self, file: LocalFile) -> bool:
        """Return whether a local file has the same content. The file is read if no manifest has its hash."""
        if self.bytes != file.bytes:
            return False
        if self.sha256 is not None:
            return self.sha256 == (file.sha256 or _sha256(file.path))
        data = file.path.read_bytes()
        return self.git_id == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


class Repository:
    """A branch of a dataset repository, which is created if it does not exist."""

    def __init__(self, name: str, revision: str | None, token: str) -> None:
        from huggingface_hub import HfApi

        self.name, self.revision = name, revision or MAIN
        self.token = token
        self._api = HfApi(token=token)
        self._at: dict[str, Any] = {"repo_id": name, "repo_type": "dataset"}
        self.endpoint = str(self._api.endpoint)
        self.url = f"{self.endpoint}/datasets/{name}"
        self.head = ""  # the commit on which the push builds
        self.private = False
        self.is_copy = False  # the branch has the same commit as the main branch, so nothing is only there

    def open(self, *, private: bool) -> dict[str, RemoteFile]:
        """Create the repository and the branch if they do not exist. Return the files of the branch.

        Raises RecipeError if the repository is public although `private`.
        """
        _patiently(lambda: self._api.create_repo(**self._at, private=private or None, exist_ok=True))
        info = self._api.repo_info(**self._at)
        self.private = bool(info.private)
        if private and not self.private:
            fix = "Make it private in its settings, or name a new repository"
            raise RecipeError(f"{self.name} exists and is public, but --private holds only for a new repository. {fix}")
        self.head = str(info.sha)
        if self.revision != MAIN:
            self._api.create_branch(**self._at, branch=self.revision, exist_ok=True)
            self.head = str(self._api.repo_info(**self._at, revision=self.revision).sha)
            self.is_copy = self.head == info.sha
        return self.files(self.head)

    def files(self, revision: str) -> dict[str, RemoteFile]:
        """Return the files of a revision by name."""
        from huggingface_hub.hf_api import RepoFile

        found = {}
        for one in self._api.list_repo_tree(**self._at, recursive=True, revision=revision):
            if isinstance(one, RepoFile):
                found[one.path] = RemoteFile(one.size, one.lfs.sha256 if one.lfs else None, one.blob_id)
        return found

    def read(self, name: str) -> bytes:
        """Return the content of a file of the branch, as it was at `open`."""
        with tempfile.TemporaryDirectory() as folder:
            path = self._api.hf_hub_download(**self._at, filename=name, revision=self.head, local_dir=folder)
            return Path(path).read_bytes()

    def upload(self, files: Sequence[LocalFile], report: Callable[[int], None]) -> list[Any]:
        """Upload large files, and return the operations that add all files. `report` gets the bytes of each finished file.

        Raises RecipeError if the content of a file differs from the manifest.
        """
        from huggingface_hub import CommitOperationAdd

        operations = []
        for batch in _batches(files):
            adds = [CommitOperationAdd(file.name, file.path) for file in batch]
            for file, add in zip(batch, adds, strict=True):
                if file.sha256 not in (None, add.upload_info.sha256.hex()):
                    fix = "Restore the file, or build the dataset again"
                    raise RecipeError(f"{file.path}: the SHA-256 differs from the one in the manifest. {fix}")
            self._api.preupload_lfs_files(self.name, adds, repo_type="dataset", revision=self.revision, free_memory=False)
            operations += adds
            report(sum(file.bytes for file in batch))
        return operations

    def commit(self, adds: Sequence[Any], deletes: Sequence[str], files: Sequence[LocalFile], message: str) -> str:
        """Make one commit that adds and deletes files, and return its id. `files` are the local files of `adds`.

        The Hub refuses the commit if another process has changed the branch since `open`. The Hub may make a commit without
        saying so: its answer is lost, or comes too late. So after a failure, this returns the head of the branch if that has
        the files.
        """
        from huggingface_hub import CommitOperationDelete
        from huggingface_hub.errors import HfHubHTTPError, HTTPError

        operations = [*adds, *(CommitOperationDelete(name, is_folder=False) for name in deletes)]

        def send() -> Any:
            return self._api.create_commit(
                **self._at,
                operations=operations,
                commit_message=message,
                parent_commit=self.head,
                revision=self.revision,
                run_as_future=False,
            )

        try:
            return str(_patiently(send).oid)
        except (HfHubHTTPError, HTTPError, ConnectionError) as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
            # A repeated commit is refused: 404 for a file that is deleted already, 409 and 412 for a branch that has moved.
            if 0 < status < 500 and status not in (404, 409, 412):
                raise
            if (head := self._head_with(files, deletes)) is None:
                raise
            return head

    def _head_with(self, files: Sequence[LocalFile], deletes: Sequence[str]) -> str | None:
        """Return the head of the branch if it has `files` and none of `deletes`, or None, also without an answer."""
        from huggingface_hub.errors import HfHubHTTPError, HTTPError

        try:
            head = str(self._api.repo_info(**self._at, revision=self.revision).sha)
            found = self.files(head) if head != self.head else {}
        except (HfHubHTTPError, HTTPError, ConnectionError):
            return None
        has_files = all(file.name in found and found[file.name].equals(file) for file in files)
        return head if found and has_files and not set(deletes) & set(found) else None

    def check(self, commit: str, files: Sequence[LocalFile]) -> None:
        """Compare the files of a commit with the local files. Raises WorkFailed if one is missing or differs."""
        found = self.files(commit)
        for file in files:
            remote = found.get(file.name)
            if remote is None or remote.bytes != file.bytes or (file.sha256 and remote.sha256 not in (None, file.sha256)):
                fault = "is missing from" if remote is None else "differs in"
                raise WorkFailed(f"{file.name} {fault} {self.name} after the upload. Run the same command again")


def to_delete(remote: dict[str, RemoteFile], files: Sequence[LocalFile]) -> list[str]:
    """Return the files of the repository that an earlier push wrote and that do not exist any more."""
    return sorted(name for name in set(remote) - {file.name for file in files} if OWN.fullmatch(name))


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Turn off the progress bars and notes of the Hub's client, because a push has its own line."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    were_off, level = are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if not were_off:
            enable_progress_bars()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _batches(files: Sequence[LocalFile]) -> Iterator[list[LocalFile]]:
    batch: list[LocalFile] = []
    for file in files:
        if batch and (len(batch) == BATCH_FILES or sum(one.bytes for one in batch) + file.bytes > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def _patiently(call: Callable[[], T]) -> T:
    """Return `call()`. Repeat it a few times while the Hub is busy or fails, after the time that it asks for."""
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(ATTEMPTS):
        try:
            return call()
        except HfHubHTTPError as error:
            status, wait = error.response.status_code, error.response.headers.get("Retry-After", "")
            if attempt == ATTEMPTS - 1 or not (status == 429 or status >= 500):
                raise
            asked = float(wait) if wait.isdigit() else 2.0**attempt
            if asked > LONGEST_WAIT_S:
                raise
            time.sleep(asked)
    raise AssertionError("unreachable")
