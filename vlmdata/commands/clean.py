"""Remove work/ and keep the dataset. A later run with other thresholds must fetch all images again."""

import shutil
from pathlib import Path

import click

from vlmdata.verbs import PATH, Verb, argument, folders, json_option, print_json

EXAMPLES = """
vlmdata clean OUT
vlmdata clean OUT --json
"""


@click.command(cls=Verb)
@argument("out", "a finished dataset on this machine", type=PATH, shell_complete=folders)
@json_option
def command(out: str, as_json: bool) -> None:
    from vlmdata.dataset import read_manifest, settle
    from vlmdata.engine.output.manifest import alone
    from vlmdata.engine.store.folder_store import LocalStore
    from vlmdata.notes import tell
    from vlmdata.redact import redacted
    from vlmdata.sizes import megabytes
    from vlmdata.step import RecipeError

    if "://" in out:
        raise RecipeError(f"{redacted(out)} is not on this machine. Remove its work/ with the tools of the object store")
    settle(LocalStore(Path(out)))
    read_manifest(out)
    work = Path(out) / "work"
    if not work.is_dir():
        raise RecipeError(f"{out} has no work/ on this machine, so there is nothing to remove")
    with alone(LocalStore(Path(out))):
        freed = sum(path.stat().st_size for path in work.rglob("*") if path.is_file() and path.stat().st_nlink == 1)
        shutil.rmtree(work)
    if as_json:
        print_json({"dataset": out, "bytes": freed})
        return
    tell(f"{work} removed: {megabytes(freed)} freed")
