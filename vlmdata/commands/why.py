"""Explain what happened to a row, given by key, address or SHA-256 of an image, or list the rows dropped for a reason."""

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
@argument("word", "address of a page or an image, key of a row, SHA-256 of an image, or reason", metavar="URL_OR_KEY")
@click.option("--limit", type=int, default=20, show_default=True, metavar="N", help="number of rows to show for a reason")
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
