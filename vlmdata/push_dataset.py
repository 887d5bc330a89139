"""Uploads a finished dataset, or an export with a card, to the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vlmdata.arguments import check_bool, check_text, path_of
from vlmdata.count_line import CountLine
from vlmdata.engine.output.manifest import MANIFEST
from vlmdata.errors import Error
from vlmdata.extras import check_installed
from vlmdata.pushing.contents import LocalFile, contents
from vlmdata.pushing.failures import LOGIN, explained
from vlmdata.pushing.repository import Repository, to_delete, without_bars
from vlmdata.step import RecipeError
from vlmdata.untrusted import errors_as
from vlmdata.version import version

PART = r"(?!.*(?:--|\.\.))\w(?:[\w.-]{0,94}\w)?"  # as huggingface_hub checks it
NAME = re.compile(rf"{PART}/{PART}(?<!\.git)", re.ASCII)
TOKEN = re.compile(r"[!-~]+")


def push(
    out: str | Path, repo: str, *, private: bool = False, revision: str | None = None, dry_run: bool = False
) -> dict[str, Any]:
    """Upload a finished dataset, or an export with a card, to the dataset repository `repo`, and return what was done.

    `repo` is `USER/NAME` on the Hugging Face Hub, and is created if it does not exist; with `private`, as a private one. A
    `revision` is a branch, and is created too. Of a dataset, only the files that its manifest lists travel, with the manifest
    and the tombstones, after their SHA-256 was compared. Files of an earlier push that do not exist any more are deleted in the
    same commit. A push that was killed continues with the same call, and repeats no finished file. With `dry_run`, nothing is
    requested, and the result only lists the files.

    The token is that of `hf auth login` or HF_TOKEN. Raises RecipeError for a mistake such as an unfinished dataset, a missing
    token or a repository with other files, and WorkFailed if the upload fails.
    """
    out = path_of(out=out)
    check_text(repo=repo)
    check_bool(private=private, dry_run=dry_run)
    if revision is not None:
        check_text(revision=revision)
    if not NAME.fullmatch(repo):
        raise RecipeError(f"{repo} is no name of a repository. Write USER/NAME, such as jane/cats")
    check_installed(["huggingface_hub"], "push")
    files = contents(out)
    done: dict[str, Any] = {"dataset": str(out), "repo": repo, "revision": revision or "main", "dry_run": dry_run}
    done["files"] = [{"name": file.name, "bytes": file.bytes} for file in files]
    if dry_run:
        return done
    return {**done, **_upload(out, files, repo, revision, private)}


def _upload(out: str | Path, files: list[LocalFile], name: str, revision: str | None, private: bool) -> dict[str, Any]:
    from huggingface_hub import constants, get_token

    token = get_token()
    if token is None:
        raise RecipeError(f"push needs a token of the Hub. {LOGIN}")
    if not TOKEN.fullmatch(token):
        raise RecipeError(f"the token of the Hub has a character that no token has. {LOGIN}")
    before = _identity(out)
    explain = errors_as(lambda error: explained(error, name, constants.ENDPOINT, token), passes=(Error,))
    with explain, without_bars():
        repository = Repository(name, revision, token)
        remote = repository.open(private=private)
        new = [file for file in files if file.name not in remote or not remote[file.name].equals(file)]
        gone = to_delete(remote, files)
        with CountLine("uploading bytes", sum(file.bytes for file in new)) as line:
            adds = repository.upload(new, line.add)
        if _identity(out) != before:
            raise RecipeError(f"{out} was changed during the upload. Run the same command again")
        message = f"Push with vlmdata {version()}"
        commit = repository.commit(adds, gone, new, message) if adds or gone else repository.head
        repository.check(commit, files)
    replaced = sorted(file.name for file in new if file.name in remote)
    return {"url": repository.url, "commit": commit, "uploaded": len(new), "replaced": replaced, "deleted": gone}


def _identity(out: str | Path) -> bytes | None:
    """Return the bytes of the manifest, which change with the dataset. An export has none."""
    path = Path(str(out).removeprefix("file://")) / MANIFEST
    return path.read_bytes() if path.is_file() else None
