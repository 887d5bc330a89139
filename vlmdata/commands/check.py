"""Find every mistake that would stop a run, or verify a finished dataset."""

import sys

import click

from vlmdata.commands.run import recipe_parameters
from vlmdata.verbs import Verb, json_option, print_json

EXAMPLES = """
vlmdata check captions --set source.path=urls.parquet
vlmdata check OUT
vlmdata check OUT --bytes
vlmdata check captions --set source.path=urls.parquet --json
"""


@click.command(cls=Verb)
@recipe_parameters
@click.option("--bytes", "every_byte", is_flag=True, help="for a dataset: read every file and compare its SHA-256")
@json_option
def command(recipe: str, settings: tuple[str, ...], every_byte: bool, as_json: bool) -> int:
    from vlmdata.recipe import modules, parse, read, read_settings
    from vlmdata.redact import redacted
    from vlmdata.verify import check, is_dataset

    target = redacted(recipe)
    if is_dataset(recipe):
        faults = check(recipe, read_bytes=every_byte)
        if as_json:
            print_json({"target": recipe, "kind": "dataset", "every_byte": every_byte, "faults": faults})
            return 1 if faults else 0
        intact = f"{target}: intact, {'every byte' if every_byte else 'counts and sizes'} checked"
        print(redacted("\n".join(faults)) if faults else intact)
        return 1 if faults else 0
    tree, path = read(recipe, read_settings(settings))
    imported = modules(tree)
    for module in imported:
        print(f"{target} imports {module}, so the code of this module runs", file=sys.stderr if as_json else sys.stdout)
    parsed = parse(tree, path)
    notes = check(parsed)
    for note in notes:
        print(f"vlmdata: {note}", file=sys.stderr)
    if as_json:
        steps = [step.name for step in parsed.steps]
        print_json({"target": recipe, "kind": "recipe", "notes": notes, "imports": list(imported), "steps": steps})
        return 0
    print(f"{target}: no mistakes; {len(parsed.steps)} steps, tars of {parsed.shards.samples:,} samples")
    return 0
