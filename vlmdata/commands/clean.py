"""Remove work/: the dataset stays, but thresholds can no longer be moved without fetching again."""

import argparse
import shutil
from pathlib import Path

from vlmdata.step import RecipeError

EXAMPLE = "vlmdata clean OUT"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="a finished dataset on this machine")


def run(arguments: argparse.Namespace) -> None:
    from vlmdata.dataset import read_manifest, settle
    from vlmdata.engine.folder import LocalStore
    from vlmdata.engine.manifest import alone
    from vlmdata.sizes import megabytes

    settle(LocalStore(Path(arguments.out)))
    read_manifest(arguments.out)
    work = Path(arguments.out) / "work"
    if not work.is_dir():
        raise RecipeError(f"{arguments.out} has no work/ on this machine; nothing to remove")
    with alone(LocalStore(Path(arguments.out))):
        freed = sum(path.stat().st_size for path in work.rglob("*") if path.is_file() and path.stat().st_nlink == 1)
        shutil.rmtree(work)
    print(f"{work} removed: {megabytes(freed)} freed")
