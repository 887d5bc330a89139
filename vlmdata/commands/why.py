"""Explain what happened to a row, or list the rows that were dropped for a reason.

A row is found by its key, by the address of its page or of an image, or by the SHA-256 of an image.
"""

import sys

import click

from vlmdata.verbs import Verb, argument, folders, json_option, print_json

EXAMPLES = """
vlmdata why OUT https://example.org/cat.jpg
vlmdata why OUT 0a1b2c3d4e5f60718293a4b5 --json
vlmdata why OUT bad_record
"""


@click.command(cls=Verb)
@argument("out", "a finished dataset", shell_complete=folders)
@argument("word", "key, address of a page or an image, SHA-256 of an image, or reason for drops", metavar="URL_OR_KEY")
@click.option("--limit", type=int, default=20, show_default=True, metavar="N", help="maximum number of rows for a reason")
@json_option
def command(out: str, word: str, limit: int, as_json: bool) -> int:
    from vlmdata.explain import tell, why
    from vlmdata.redact import redacted

    lines = why(out, word, limit=limit)
    if as_json:
        print_json({"dataset": out, "word": word, "rows": lines})
    for line in [] if as_json else lines:
        print(tell(line, redacted(word)))
    if not lines:
        print(redacted(f"{out}: no row found for {word}"), file=sys.stderr)
    return 0 if lines else 1
