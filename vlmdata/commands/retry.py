"""Fetch again what failed in passing: time-outs, full hosts, servers that were down."""

import argparse
import json

from vlmdata.commands.run import engine_arguments
from vlmdata.step import RecipeError

EXAMPLE = """
vlmdata retry OUT
vlmdata retry OUT --only timeout,http_503
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="a finished dataset")
    parser.add_argument("--only", help="reasons, separated by commas (default: every passing one)")
    parser.add_argument(
        "--recipe", metavar="RECIPE", help="what built it, where its addresses hold secrets: the manifest does not"
    )
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change a value of that recipe")
    engine_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    from vlmdata.build import run as build
    from vlmdata.dataset import read_manifest, settle
    from vlmdata.engine.open import open_store
    from vlmdata.recipe import load, parse, read_settings
    from vlmdata.redact import MARK, redacted
    from vlmdata.show import summary
    from vlmdata.web.outcomes import is_passing

    settle(open_store(arguments.out, probe=False))
    before = read_manifest(arguments.out)
    found = sorted({line["reason"] for line in before["dropped"] if line["step"] == "download"})
    wanted = arguments.only.split(",") if arguments.only else [reason for reason in found if is_passing(reason)]
    unknown = set(wanted) - set(found)
    if unknown:
        raise RecipeError(f"no row of {arguments.out} failed by {', '.join(sorted(unknown))}; there is: {', '.join(found)}")
    if not wanted:
        print(f"{redacted(arguments.out)}: no row failed in passing")
        return
    recipe = load(arguments.recipe, read_settings(arguments.set)) if arguments.recipe else parse(before["recipe"])
    if not arguments.recipe and MARK in json.dumps(before["recipe"]):
        raise RecipeError(f"{arguments.out} does not keep the secrets of its recipe's addresses: add --recipe FILE")
    options = {name: getattr(arguments, name) for name in ("address", "local", "workers")}
    manifest = build(recipe, arguments.out, again=tuple(wanted), **options)
    print(summary(manifest, arguments.out))
    print(f"{manifest['kept'] - before['kept']:,} rows more than before")
