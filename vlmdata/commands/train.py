"""Train a vision-language model on a dataset; the same as python -m vlmdata_train."""

import subprocess
import sys

import click

from vlmdata import interrupt
from vlmdata.verbs import Verb, argument

EXAMPLES = """
vlmdata train align tiny --set data=OUT --set out=RUN
vlmdata train chat RUN/checkpoints/step_00000060 photo.jpg
torchrun --nproc-per-node 8 -m vlmdata_train align --set data=OUT --set lr=1e-3
"""
HELP = "align, instruct, evaluate, chat or export, with its arguments"
TRAINER = [sys.executable, "-m", "vlmdata_train"]


@click.command(cls=Verb, context_settings={"allow_interspersed_args": False})
@argument("words", HELP, nargs=-1, type=click.UNPROCESSED, metavar="VERB ...")
def command(words: tuple[str, ...]) -> int:
    with subprocess.Popen([*TRAINER, *(words or ["--help"])]) as process, interrupt.handed_to(process):
        status = process.wait()
    return 128 - status if status < 0 else status
