"""Write a dataset as Parquet with image columns, as a Hugging Face dataset, as plain folders, or conversations as messages."""

import argparse

from vlmdata import exports

EXAMPLE = """
vlmdata export OUT --to parquet EXPORTED
vlmdata export OUT --to folder PICTURES
vlmdata export TALKS --to messages CHATS
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", help="a finished dataset")
    parser.add_argument("target", help="folder to write; it must not exist")
    parser.add_argument("--to", choices=exports.names(), default="parquet", help="form (default: parquet)")


def run(arguments: argparse.Namespace) -> None:
    from vlmdata.export import export
    from vlmdata.redact import redacted

    samples = export(arguments.out, arguments.to, arguments.target)
    print(f"{redacted(arguments.target)}: {samples:,} samples as {arguments.to}")
