"""Show a finished dataset: the number of rows kept and dropped by each step, and a few samples."""

import textwrap
from pathlib import Path
from typing import Any

import click

from vlmdata.verbs import Verb, argument, folders

EXAMPLES = """
vlmdata show OUT
vlmdata show OUT --samples 10
vlmdata show OUT --open
"""


@click.command(cls=Verb)
@argument("out", "a finished dataset", shell_complete=folders)
@click.option("--samples", type=int, default=3, show_default=True, metavar="N", help="number of samples to print")
@click.option("--open", "in_browser", is_flag=True, help="open report.html in the browser")
def command(out: str, samples: int, in_browser: bool) -> None:
    import webbrowser

    from vlmdata.dataset import read_manifest
    from vlmdata.report.write import REPORT
    from vlmdata.show import first_samples, summary
    from vlmdata.step import RecipeError

    manifest = read_manifest(out)
    print(summary(manifest, out))
    for sample in first_samples(out, samples):
        print(f"\n{describe(sample)}")
    if not in_browser:
        return
    if "://" in out:
        raise RecipeError(f"{out} is not on this machine. Copy its {REPORT} here to open it")
    webbrowser.open((Path(out).absolute() / REPORT).as_uri())


def describe(sample: dict[str, Any]) -> str:
    """Return a sample as lines: the key, the members with sizes, and the start of the text."""
    from vlmdata.sizes import megabytes

    members = ", ".join(f"{name} {megabytes(size)}" for name, size in sample["members"])
    sizes = ", ".join(f"{width} x {height}" for width, height in sample["images"])
    words = textwrap.shorten(sample["words"], 300, placeholder=" …") or "(no text)"
    lines = [sample["key"], f"{members}{f'  ({sizes})' if sizes else ''}", *textwrap.wrap(words, 100)]
    return "\n    ".join(lines)
