"""Show a finished dataset: the number of rows kept and dropped by each step, and a few samples."""

import textwrap
from pathlib import Path
from typing import Any

import click

from vlmdata.verbs import PATH, Verb, argument, folders, json_option, print_json

EXAMPLES = """
vlmdata show OUT
vlmdata show OUT --samples 10
vlmdata show OUT --open
vlmdata show OUT --json
"""


@click.command(cls=Verb)
@argument("out", "a finished dataset", type=PATH, shell_complete=folders)
@click.option("--samples", type=int, default=3, show_default=True, metavar="N", help="number of samples to print")
@click.option("--open", "in_browser", is_flag=True, help="open report.html in the browser")
@json_option
def command(out: str, samples: int, in_browser: bool, as_json: bool) -> None:
    import webbrowser

    from vlmdata.arguments import check_whole
    from vlmdata.dataset import read_manifest
    from vlmdata.engine.store.open_store import open_store
    from vlmdata.report.loss_lines import loss_lines
    from vlmdata.report.write import REPORT
    from vlmdata.show import first_samples, summary, totals
    from vlmdata.step import RecipeError

    check_whole(0, **{"--samples": samples})
    manifest = read_manifest(out)
    if in_browser and "://" in out:
        raise RecipeError(f"{out} is not on this machine. Copy its {REPORT} here to open it")
    found = first_samples(out, samples)
    if as_json:
        print_json({**totals(manifest, out), "samples": [as_fields(sample) for sample in found]})
    else:
        print("\n\n".join([summary(manifest, out), *map(describe, found)]))
        for line in loss_lines(open_store(out, probe=False), manifest, out):
            print(line)
    if in_browser:
        webbrowser.open((Path(out).absolute() / REPORT).as_uri())


def as_fields(sample: dict[str, Any]) -> dict[str, Any]:
    """Return a sample as `--json` prints it: `key`, `text`, `written`, `members` with bytes, and `images` with sizes."""
    members = [{"name": name, "bytes": size} for name, size in sample["members"]]
    images = [{"width": width, "height": height} for width, height in sample["images"]]
    written = [{"step": step, "caption": caption} for step, caption in sample["written"]]
    return {"key": sample["key"], "text": sample["words"], "written": written, "members": members, "images": images}


def describe(sample: dict[str, Any]) -> str:
    """Return a sample as lines: the key, the members with sizes, and the starts of the text and of what steps wrote."""
    from vlmdata.sizes import megabytes

    members = ", ".join(f"{name} {megabytes(size)}" for name, size in sample["members"])
    sizes = ", ".join(f"{width} x {height}" for width, height in sample["images"])
    words = textwrap.shorten(sample["words"], 300, placeholder=" …") or "(no text)"
    lines = [sample["key"], f"{members}{f'  ({sizes})' if sizes else ''}", *textwrap.wrap(words, 100)]
    for step, caption in sample["written"]:
        lines += textwrap.wrap(f"{step}: {textwrap.shorten(caption, 300, placeholder=' …')}", 100)
    return "\n    ".join(lines)
