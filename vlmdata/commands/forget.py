"""Remove samples by address, domain, key, SHA-256 or similarity to an image. Later runs do not add them again.

If no option names a sample, finish a takedown that was interrupted.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from vlmdata.verbs import PATH, Verb, argument, files, folders, json_option, print_json

EXAMPLES = """
vlmdata forget OUT --url https://example.org/cat.jpg --receipt receipt.json
vlmdata forget OUT --domain example.org --url @addresses.txt
vlmdata forget OUT --like portrait.jpg --bits 6 --dry-run
"""
KINDS = {
    "url": "address of a page or an image",
    "domain": "all hosts of a domain, such as example.org",
    "key": "key of a sample: 24 hex digits, and perhaps _ and a number",
    "sha256": "SHA-256 of an image as fetched: 64 hex digits",
    "like": "image file, to find all images that look like it",
}


def kinds(command: Any) -> Any:
    """Add to the command one option for each way to name samples: by address, domain, key, SHA-256 or a similar image."""
    for name, what in reversed(KINDS.items()):
        command = click.option(
            f"--{name}",
            multiple=True,
            metavar=name.upper(),
            help=f"{what}; to name several, write them to a file, one per line, and give @FILE",
            shell_complete=files if name == "like" else None,
        )(command)
    return command


@click.command(cls=Verb)
@argument("out", "a finished dataset", type=PATH, shell_complete=folders)
@kinds
@click.option(
    "--bits",
    type=int,
    default=4,
    show_default=True,
    metavar="N",
    help="for --like: how many of the 64 bits of the perceptual hash may differ",
)
@click.option(
    "--receipt",
    type=PATH,
    metavar="FILE",
    help="write a JSON receipt of the takedown; keep it outside the dataset",
    shell_complete=files,
)
@click.option("--dry-run", is_flag=True, help="only print what would be removed")
@json_option
def command(
    out: str, bits: int, receipt: str | None, dry_run: bool, as_json: bool, **values: tuple[str, ...]
) -> None:  # fmt: skip
    from vlmdata.forget_words import near_lines
    from vlmdata.notes import tell
    from vlmdata.redact import redacted
    from vlmdata.sizes import counted, noun
    from vlmdata.takedown import forget

    removal = forget(out, **{name: lines(values[name]) for name in KINDS}, bits=bits, dry_run=dry_run)
    if receipt and removal:
        Path(receipt).write_text(json.dumps(removal, indent=1) + "\n")
    if as_json:
        print_json({"dry_run": dry_run, "finished_earlier": not removal, **(removal or {"dataset": out})})
        return
    if not removal:
        tell("finished the takedown that was interrupted")
        return
    samples = f"{counted(removal['samples'], 'sample')} in {counted(len(removal['shards']), 'tar')}"
    rows = counted(len(removal["removed"]), "row")
    if dry_run:
        print(f"{rows} would be forgotten, among them {samples}")
    else:
        tell(f"{rows} forgotten, among them {samples}")
    if missing := removal["not_found"]:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        them = noun(len(missing), "it", "them")
        will = "would" if dry_run else "will"
        print(f"{len(missing):,} not found: {redacted(', '.join(missing[:3]))}{more}. No later run {will} add {them}")
        for line in near_lines(out, missing):
            print(line)


def lines(values: Iterable[str]) -> list[str]:
    """Return the values, with each `@FILE` replaced by the file's lines. Raises RecipeError if a file cannot be read."""
    from vlmdata.home_folder import at_home
    from vlmdata.step import RecipeError

    found = []
    for value in values:
        if not value.startswith("@"):
            found.append(value)
            continue
        try:
            found += [line.strip() for line in Path(at_home(value[1:])).read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read the list {value[1:]}: {error}") from None
    return found
