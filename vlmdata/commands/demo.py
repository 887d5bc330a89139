"""Run the whole pipeline on bundled pictures, without internet: fetch, filter, score, deduplicate, pack, stream, train."""

import os
from pathlib import Path

import click

from vlmdata.verbs import PATH, Verb, folders

EXAMPLES = "vlmdata demo --out demo-out"


@click.command(cls=Verb)
@click.option(
    "--out",
    default="demo-out",
    show_default=True,
    metavar="FOLDER",
    help="folder for all results",
    type=PATH,
    shell_complete=folders,
)
@click.option("--local", is_flag=True, help="use plain processes instead of Ray")
def command(out: str, local: bool) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow a busy machine tenfold
    from vlmdata.demo.demo import demo
    from vlmdata.notes import tell

    tell(demo(Path(out), local=local))
