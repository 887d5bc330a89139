"""Build a dataset; the same command resumes one that was interrupted."""

import argparse

from vlmdata.recipe import read_settings

EXAMPLE = """
vlmdata run captions --set source.path=urls.parquet --out OUT
vlmdata run my-recipe.yaml --out s3://bucket/dataset --address auto
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    recipe_arguments(parser)
    parser.add_argument("--out", required=True, help="folder or object-store address of the dataset")
    engine_arguments(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="only N rows: of a list a fair sample")


def recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what names a recipe and changes it."""
    parser.add_argument("recipe", help="a YAML file, or the name of a recipe that ships (captions)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="change a parameter: image_size.min_side=100"
    )


def engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says where the work is done."""
    parser.add_argument("--address", help="of a running Ray cluster, or auto; without it Ray starts on this machine")
    parser.add_argument("--local", action="store_true", help="plain processes instead of Ray: starts in a second")
    parser.add_argument("--workers", type=int, metavar="N", help="how many at once (default: one for each core)")


def run(arguments: argparse.Namespace) -> None:
    from vlmdata.build import run as build
    from vlmdata.show import summary

    options = {name: getattr(arguments, name) for name in ("address", "local", "workers", "limit")}
    manifest = build(arguments.recipe, arguments.out, set=read_settings(arguments.set), **options)
    print(summary(manifest, arguments.out))
