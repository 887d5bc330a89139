"""Show a finished dataset: counts, what each step cost, a few samples; with --open the report."""

import argparse
import textwrap
import webbrowser
from pathlib import Path
from typing import Any

from vlmdata.step import RecipeError

EXAMPLE = """
vlmdata show OUT
vlmdata show OUT --samples 10
vlmdata show OUT --open
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="a finished dataset")
    parser.add_argument("--samples", type=int, default=3, metavar="N", help="how many samples to print (default: 3)")
    parser.add_argument("--open", action="store_true", help="open report.html in the browser")


def run(arguments: argparse.Namespace) -> None:
    from vlmdata.dataset import read_manifest
    from vlmdata.report.write import REPORT
    from vlmdata.show import first_samples, summary

    manifest = read_manifest(arguments.out)
    print(summary(manifest, arguments.out))
    for sample in first_samples(arguments.out, arguments.samples):
        print(f"\n{describe(sample)}")
    if not arguments.open:
        return
    if "://" in arguments.out:
        raise RecipeError(f"{arguments.out}: copy {REPORT} to this machine to open it")
    webbrowser.open((Path(arguments.out).absolute() / REPORT).as_uri())


def describe(sample: dict[str, Any]) -> str:
    """Return a sample as lines: key, its members with their sizes, the beginning of its words."""
    from vlmdata.sizes import megabytes

    members = ", ".join(f"{name} {megabytes(size)}" for name, size in sample["members"])
    sizes = ", ".join(f"{width} x {height}" for width, height in sample["images"])
    words = textwrap.shorten(sample["words"], 300, placeholder=" …") or "(no text)"
    lines = [sample["key"], f"{members}{f'  ({sizes})' if sizes else ''}", *textwrap.wrap(words, 100)]
    return "\n    ".join(lines)
