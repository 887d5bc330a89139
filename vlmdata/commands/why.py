"""Explain what happened to a row, or list the rows that were dropped for a reason.

A row is found by its key, by the address of its page or of an image, or by the SHA-256 of an image.
"""

import json
import sys

import click

from vlmdata.verbs import Verb, argument, folders

EXAMPLES = """
vlmdata why OUT https://example.org/cat.jpg
vlmdata why OUT 0a1b2c3d4e5f60718293a4b5 --json
vlmdata why OUT bad_record
"""


@click.command(cls=Verb)
@argument("out", "a finished dataset", shell_complete=folders)
@argument("word", "key, address of a page or an image, SHA-256 of an image, or reason for drops", metavar="URL_OR_KEY")
@click.option("--limit", type=int, default=20, show_default=True, metavar="N", help="maximum number of rows for a reason")
@click.option("--json", "as_json", is_flag=True, help="print the ledger's lines as JSON, one per line")
def command(out: str, word: str, limit: int, as_json: bool) -> int:
    from vlmdata.explain import tell, why
    from vlmdata.redact import redacted, redacted_tree

    lines = why(out, word, limit=limit)
    for line in lines:
        print(json.dumps(redacted_tree(line), default=str) if as_json else tell(line, redacted(word)))
    if not lines:
        print(redacted(f"{out}: no row found for {word}"), file=sys.stderr)
    return 0 if lines else 1
