"""Say what became of a row and why, by its key, an address or an image's SHA-256; or of rows dropped for a reason."""

import argparse
import json
import sys

EXAMPLE = """
vlmdata why OUT https://example.org/cat.jpg
vlmdata why OUT 0a1b2c3d4e5f60718293a4b5 --json
vlmdata why OUT bad_record
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="a finished dataset")
    parser.add_argument(
        "word", metavar="URL_OR_KEY", help="address of a page or an image, also within documents; key; SHA-256; reason"
    )
    parser.add_argument("--limit", type=int, default=20, help="with a reason: how many rows to show (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the ledger's lines as JSON, one a line")


def run(arguments: argparse.Namespace) -> int:
    from vlmdata.redact import redacted, redacted_tree
    from vlmdata.why import dropped_for, tell, why

    lines = why(arguments.out, arguments.word) or dropped_for(arguments.out, arguments.word, arguments.limit)
    for line in lines:
        print(json.dumps(redacted_tree(line), default=str) if arguments.json else tell(line, redacted(arguments.word)))
    if not lines:
        print(redacted(f"{arguments.out}: no row of {arguments.word}"), file=sys.stderr)
    return 0 if lines else 1
