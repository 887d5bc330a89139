"""Put an index beside WebDataset tars that others wrote, so that they stream at once."""

import argparse
from pathlib import Path

from vlmdata.step import RecipeError

EXAMPLE = """
vlmdata index shards/
vlmdata index 'shards/*.tar' --out index.parquet
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tars", help="folder, pattern or address of the tars")
    parser.add_argument("--out", help="the file to write (default: index.parquet in the folder of the tars)")
    parser.add_argument("--image-sizes", action="store_true", help="also read each image's header for its width and height")


def run(arguments: argparse.Namespace) -> None:
    from vlmdata.loader.build import build_index

    out = Path(arguments.out) if arguments.out else None
    try:
        print(build_index(arguments.tars, out=out, image_sizes=arguments.image_sizes))
    except ValueError as error:  # a tar that is cut or broken: the message names it and the byte
        raise RecipeError(str(error)) from None
