"""The whole path on bundled pictures: fetch, filter, score, deduplicate, pack, stream, train. No internet."""

import argparse
import os
from pathlib import Path

EXAMPLE = "vlmdata demo --out demo-out"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="demo-out", help="folder for everything it makes (default: demo-out)")
    parser.add_argument("--local", action="store_true", help="plain processes instead of Ray")


def run(arguments: argparse.Namespace) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on a busy machine threads that wait by spinning cost tenfold
    from vlmdata.demo.demo import demo

    print(demo(Path(arguments.out), local=arguments.local))
