"""Say which rows came, went or changed between two datasets, and by which step."""

import argparse

EXAMPLE = "vlmdata diff OLD NEW"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a finished dataset")
    parser.add_argument("b", metavar="B", help="another, or the same built otherwise")


def run(arguments: argparse.Namespace) -> None:
    from vlmdata.diff import diff, tell

    print(tell(diff(arguments.a, arguments.b)))
