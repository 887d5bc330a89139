"""Train a vision-language model on what was built: the same as python -m vlmdata_train."""

import argparse
import subprocess
import sys

from vlmdata import interrupt

EXAMPLE = """
vlmdata train align tiny --set data=OUT --set out=RUN
vlmdata train chat RUN/checkpoints/step_00000060 photo.jpg
torchrun --nproc-per-node 8 -m vlmdata_train align --set data=OUT --set lr=1e-3
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="align, instruct, evaluate, chat or export, with what it takes")


def run(arguments: argparse.Namespace) -> int:
    command = [sys.executable, "-m", "vlmdata_train", *(arguments.rest or ["--help"])]
    with subprocess.Popen(command) as process, interrupt.handed_to(process):
        status = process.wait()
    return 128 - status if status < 0 else status
