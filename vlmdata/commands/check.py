"""Find every mistake that would stop a run, or verify a finished dataset."""

import sys

import click

from vlmdata.commands.run import recipe_parameters
from vlmdata.verbs import Verb

EXAMPLES = """
vlmdata check captions --set source.path=urls.parquet
vlmdata check OUT
vlmdata check OUT --bytes
"""


@click.command(cls=Verb)
@recipe_parameters
@click.option("--bytes", "every_byte", is_flag=True, help="for a dataset: read every file and compare its SHA-256")
def command(recipe: str, settings: tuple[str, ...], every_byte: bool) -> int:
    from vlmdata.recipe import modules, parse, read, read_settings
    from vlmdata.redact import redacted
    from vlmdata.verify import check, is_dataset

    target = redacted(recipe)
    if is_dataset(recipe):
        faults = check(recipe, read_bytes=every_byte)
        intact = f"{target}: intact, {'every byte' if every_byte else 'counts and sizes'} checked"
        print(redacted("\n".join(faults)) if faults else intact)
        return 1 if faults else 0
    tree, path = read(recipe, read_settings(settings))
    for module in modules(tree):
        print(f"{target} imports {module}, so the code of this module runs")
    parsed = parse(tree, path)
    for note in check(parsed):
        print(f"vlmdata: {note}", file=sys.stderr)
    print(f"{target}: no mistakes; {len(parsed.steps)} steps, tars of {parsed.shards.samples:,} samples")
    return 0
