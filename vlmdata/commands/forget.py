"""Remove samples for good: by address, domain, key, SHA-256 or likeness; no later run brings them back.

Without any of these it finishes a takedown that was interrupted.
"""

import argparse
import json
from pathlib import Path

from vlmdata.redact import redacted
from vlmdata.step import RecipeError

EXAMPLE = """
vlmdata forget OUT --url https://example.org/cat.jpg --receipt receipt.json
vlmdata forget OUT --domain example.org --url @addresses.txt
vlmdata forget OUT --like portrait.jpg --bits 6 --dry-run
"""
KINDS = {
    "url": "address of a page or an image",
    "domain": "all hosts of a domain",
    "key": "key of a sample",
    "sha256": "hash of an image as it was fetched",
    "like": "image file: all images that look like it",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="a finished dataset")
    for name, what in KINDS.items():
        parser.add_argument(f"--{name}", action="append", default=[], help=f"{what}; @FILE for a list, one a line")
    parser.add_argument("--bits", type=int, default=4, help="by how many of 64 bits a likeness may differ (default: 4)")
    parser.add_argument("--receipt", metavar="FILE", help="write what was removed as JSON; keep it outside the dataset")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def run(arguments: argparse.Namespace) -> None:
    from vlmdata.takedown import Request, finish, forget, likeness

    if not any(getattr(arguments, name) for name in KINDS) and not arguments.dry_run and finish(arguments.out):
        print("the takedown that was interrupted is finished")
        return
    given = {name: lines(getattr(arguments, name)) for name in KINDS}
    likenesses = [likeness(path) for path in given["like"]]
    hashes = [sha.lower() for sha in given["sha256"]]
    request = Request(given["url"], given["domain"], given["key"], hashes, likenesses, arguments.bits)
    receipt = forget(arguments.out, request, dry=arguments.dry_run)
    done = "would be forgotten" if arguments.dry_run else "forgotten"
    print(f"{len(receipt['removed']):,} rows {done}, {receipt['samples']:,} of them samples in {len(receipt['shards']):,} tars")
    if missing := receipt["not_found"]:
        print(f"{len(missing):,} not found: {redacted(', '.join(missing[:3]))}; they will not come in either")
    if arguments.receipt:
        Path(arguments.receipt).write_text(json.dumps(receipt, indent=1) + "\n")


def lines(values: list[str]) -> list[str]:
    """Return values, each `@FILE` replaced by the lines of that file. Raises RecipeError for a file that cannot be read."""
    found = []
    for value in values:
        if not value.startswith("@"):
            found.append(value)
            continue
        try:
            found += [line.strip() for line in Path(value[1:]).read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{value[1:]}: cannot be read as a list: {error}") from None
    return found
