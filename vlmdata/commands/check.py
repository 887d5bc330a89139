"""Find every mistake that a run would make, in a second; or verify a finished dataset."""

import argparse
from pathlib import Path

from vlmdata.commands.run import overrides, recipe_arguments

EXAMPLE = """
vlmdata check captions --set source.path=urls.parquet
vlmdata check OUT
vlmdata check OUT --bytes
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    recipe_arguments(parser)
    parser.add_argument("--bytes", action="store_true", help="of a dataset: read every file and compare its SHA-256")


def run(arguments: argparse.Namespace) -> int:
    from vlmdata.build import check
    from vlmdata.engine.audit import audit
    from vlmdata.recipe import load

    target = arguments.recipe
    if "://" in target or Path(target).is_dir():
        faults = audit(target, read_bytes=arguments.bytes)
        print(
            "\n".join(faults) if faults else f"{target}: whole, {'every byte' if arguments.bytes else 'sums and sizes'} checked"
        )
        return 1 if faults else 0
    recipe = load(target, overrides(arguments.set))
    check(recipe)
    print(f"{target}: nothing wrong; {len(recipe.steps)} steps, tars of {recipe.shards.samples:,} samples")
    return 0
