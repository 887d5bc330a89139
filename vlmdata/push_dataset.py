"""Uploads a finished dataset, or an export with a card, to the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vlmdata.arguments import check_bool, check_text, path_of
from vlmdata.card import CARD
from vlmdata.count_line import CountLine
from vlmdata.engine.output.manifest import MANIFEST
from vlmdata.errors import Error
from vlmdata.extras import check_installed
from vlmdata.pushing.contents import LocalFile, contents
from vlmdata.pushing.failures import LOGIN, explained
from vlmdata.pushing.identity import difference, identify
from vlmdata.pushing.repository import RemoteFile, Repository, to_delete, without_bars
from vlmdata.readable import visible
from vlmdata.sizes import counted
from vlmdata.step import RecipeError
from vlmdata.untrusted import errors_as
from vlmdata.version import version

PART = r"(?!.*(?:--|\.\.))\w(?:[\w.-]{0,94}\w)?"  # as huggingface_hub checks it
NAME = re.compile(rf"{PART}/{PART}(?<!\.git)", re.ASCII)
# A branch by the rules of `git check-ref-format`; names that begin with `refs/` are no branches.
BRANCH = re.compile(r"(?!refs/|.*(?:\.\.|//|/\.|@\{|\.lock(?:/|$)))[^-./\s~^:?*\[\\][^\s~^:?*\[\\]*(?<![./])")
TOKEN = re.compile(r"[!-~]+")
SAMPLES = re.compile(r"\.(tar|parquet|arrow|mds|mds\.zstd)$")  # names of files with samples


def push(
    out: str | Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    replace: bool = False,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Upload a finished dataset, or an export with a card, to the dataset repository `repo`, and return what was done.

    `repo` is `USER/NAME` on the Hugging Face Hub, and is created if it does not exist; with `private`, as a private one. A
    `revision` is a branch, and is created too, as a copy of the main branch. Of a dataset, only the files that its manifest
    lists travel, with the manifest and the tombstones, after their SHA-256 was compared. Files of an earlier push that do not
    exist any more are deleted in the same commit. With `replace`, so are those of another dataset or another format, and
    without it such a push is refused. A push that was killed continues with the same call, and repeats no finished file. With
    `dry_run`, nothing is requested, and the result only lists the files.

    The token is that of `hf auth login` or HF_TOKEN. Raises RecipeError for a mistake such as an unfinished dataset, a missing
    token or a repository with other files, and WorkFailed if the upload fails.
    """
    out = path_of(out=out)
    check_text(repo=repo)
    check_bool(private=private, replace=replace, dry_run=dry_run)
    if revision is not None:
        check_text(revision=revision)
        if not BRANCH.fullmatch(revision) or not revision.isprintable():
            raise RecipeError(f"{visible(revision)!r} is no name of a branch. Write a name such as v2")
    if not NAME.fullmatch(repo):
        raise RecipeError(f"{repo} is no name of a repository. Write USER/NAME, such as jane/cats")
    check_installed(["huggingface_hub"], "push")
    before = _read(out, MANIFEST)  # changes with the dataset; an export has none
    files = contents(out)
    done: dict[str, Any] = {"dataset": str(out), "repo": repo, "revision": revision or "main", "dry_run": dry_run}
    done["files"] = [{"name": file.name, "bytes": file.bytes} for file in files]
    if dry_run:
        return done
    return {**done, **_upload(out, files, before, _repository(repo, revision), private=private, replace=replace)}


def _repository(name: str, revision: str | None) -> Repository:
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise RecipeError(f"push needs a token of the Hub. {LOGIN}")
    if not TOKEN.fullmatch(token):
        raise RecipeError(f"the token of the Hub has a character that no token has. {LOGIN}")
    return Repository(name, revision, token)


def _upload(
    out: str | Path,
    files: list[LocalFile],
    before: bytes | None,
    repository: Repository,
    *,
    private: bool,
    replace: bool,
) -> dict[str, Any]:
    """Upload the files. `before` is the manifest as it was before `files` were listed."""
    explain = errors_as(lambda error: explained(error, repository.name, repository.endpoint, repository.token), passes=(Error,))
    with explain, without_bars():
        remote = repository.open(private=private)
        new = [file for file in files if file.name not in remote or not remote[file.name].equals(file)]
        _check_owner(out, files, new, repository, remote, replace)
        gone = to_delete(remote, files)
        with CountLine("uploading bytes", sum(file.bytes for file in new)) as line:
            adds = repository.upload(new, line.add)
        if _read(out, MANIFEST) != before:
            raise RecipeError(f"{out} was changed during the upload. Run the same command again")
        replaced = sorted(file.name for file in new if file.name in remote)
        numbers = (len(new) - len(replaced), "added"), (len(replaced), "replaced"), (len(gone), "deleted")
        changes = ", ".join(f"{counted(number, 'file')} {what}" for number, what in numbers if number)
        message = f"Push with vlmdata {version()}: {changes}"
        commit = repository.commit(adds, gone, new, message) if adds or gone else repository.head
        repository.check(commit, files)
    done = {"url": repository.url, "private": repository.private, "commit": commit}
    return {**done, "uploaded": len(new), "replaced": replaced, "deleted": gone}


def _check_owner(
    out: str | Path,
    files: list[LocalFile],
    new: list[LocalFile],
    repository: Repository,
    remote: dict[str, RemoteFile],
    replace: bool,
) -> None:
    """Raise RecipeError if the branch holds files of someone else, or without `replace` another dataset or format.

    `new` are the files that the branch does not have. A branch that is a copy of the main branch may be replaced.
    """
    others = sorted(set(remote) - {".gitattributes"})
    if not others:
        return
    card, manifest = (repository.read(name) if name in remote else None for name in (CARD, MANIFEST))
    there = identify(remote, card, manifest)
    if there is None and others == [CARD]:  # as the site of the Hub writes for a new repository with a licence
        if not replace:
            raise RecipeError(f"{repository.name} holds only a {CARD} that vlmdata did not write. Add --replace to replace it")
        return
    if there is None:
        fix = f"If an earlier push wrote them, add the tag `vlmdata` to the metadata of its {CARD}"
        first = f"{repository.name} holds files that vlmdata did not push, such as {others[0]}"
        raise RecipeError(f"{first}. Name a new repository. {fix}")
    here = identify([file.name for file in files], _read(out, CARD), _read(out, MANIFEST))
    assert here is not None  # `contents` has checked it
    share = any(SAMPLES.search(file.name) for file in set(files) - set(new))
    found = difference(here, there, share=share)
    if found and not (replace or repository.is_copy):
        fix = "Add --replace to replace it, or name another repository, or a new branch with --revision"
        raise RecipeError(f"{repository.name} holds {found}. {fix}")


def _read(out: str | Path, name: str) -> bytes | None:
    path = Path(str(out).removeprefix("file://")) / name
    return path.read_bytes() if path.is_file() else None
