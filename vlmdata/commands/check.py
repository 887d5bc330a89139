"""Find every mistake that would stop a run, or verify a finished dataset."""

import sys

import click

from vlmdata.commands.run import RECIPE, recipe_parameters
from vlmdata.verbs import PATH, Verb, folders, json_option, print_json

EXAMPLES = """
vlmdata check captions --set source.path=urls.parquet
vlmdata check captions --set source.path=urls.parquet --out OUT --deep
vlmdata check OUT
vlmdata check OUT --bytes
vlmdata check captions --set source.path=urls.parquet --json
"""


@click.command(cls=Verb)
@recipe_parameters(f"{RECIPE}; or a finished dataset")
@click.option("--out", metavar="OUT", help="also check where the run would write", type=PATH, shell_complete=folders)
@click.option(
    "--deep",
    is_flag=True,
    help="also ask for missing weights, try to write to OUT, try a sample of rows, and ask each endpoint for up to 4 answers: "
    "up to a minute, and one more for each endpoint",
)
@click.option("--bytes", "every_byte", is_flag=True, help="for a dataset: read every file and compare its SHA-256")
@json_option
def command(recipe: str, settings: tuple[str, ...], out: str | None, deep: bool, every_byte: bool, as_json: bool) -> int:
    from vlmdata.errors import Mistakes
    from vlmdata.recipe import modules, read, read_settings
    from vlmdata.redact import redacted
    from vlmdata.sizes import counted
    from vlmdata.verify import check, find_mistakes, is_dataset

    target = redacted(recipe)
    if is_dataset(recipe):
        faults = check(recipe, read_bytes=every_byte, out=out, deep=deep)
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
    found = find_mistakes((tree, path), out=out, deep=deep)
    if as_json:
        names = [next(iter(step)) if isinstance(step, dict) else step for step in tree.get("steps") or []]
        findings = {"mistakes": found.mistakes, "notes": found.notes, "facts": found.facts}
        print_json({"target": recipe, "kind": "recipe", **findings, "imports": list(imported), "steps": names})
        return 2 if found.mistakes else 0
    if found.mistakes:
        raise Mistakes(found.mistakes)
    for note in found.notes:
        print(f"vlmdata: {note}", file=sys.stderr)
    for fact in found.facts if deep or out else ():
        print(fact)
    steps = counted(len(tree.get("steps") or []), "step")
    print(f"{target}: no mistakes; {steps}, tars of {counted(_samples(tree), 'sample')}")
    return 0


def _samples(tree: dict) -> int:
    from vlmdata.recipe import Shards

    return (tree.get("shards") or {}).get("samples", Shards.samples)
