"""Explain what happened to a row, or list the rows that were dropped by a step or for a reason.

A row is found by its key, by the address of its page or of an image, or by the SHA-256 of an image. A step or a reason is
written as `vlmdata show` prints it.
"""

import sys

import click

from vlmdata.verbs import PATH, Verb, argument, folders, json_option, print_json

EXAMPLES = """
vlmdata why OUT https://example.org/cat.jpg
vlmdata why OUT 0a1b2c3d4e5f60718293a4b5 --json
vlmdata why OUT 'image_size: min_side'
vlmdata why OUT bad_record --limit 100
"""
LONGEST = 2000  # characters of a word that a message repeats


@click.command(cls=Verb)
@argument("out", "a finished dataset", type=PATH, shell_complete=folders)
@argument("word", "key, address of a page or an image, SHA-256 of an image, step, or reason for drops", metavar="WORD")
@click.option("--limit", type=int, default=20, show_default=True, metavar="N", help="maximum number of dropped rows")
@json_option
def command(out: str, word: str, limit: int, as_json: bool) -> int:
    from vlmdata.drop_reasons import reasons_line
    from vlmdata.explain import find, tell
    from vlmdata.readable import visible
    from vlmdata.redact import redacted
    from vlmdata.sizes import counted

    lines, count = find(out, word, limit=limit)
    if as_json:
        print_json({"dataset": out, "word": word, "rows": lines, "count": count})
    for line in [] if as_json else lines:
        print(tell(line, redacted(word)))
    if not lines:
        about = f"{out}: no row found for {visible(redacted(word), LONGEST)}{reasons_line(out, word)}"
        print(redacted(about), file=sys.stderr)
    elif count > len(lines) and not as_json:
        print(f"{len(lines):,} of {counted(count, 'row')}; --limit {count} shows all")
    return 0 if lines else 1
