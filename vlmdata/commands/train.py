"""Train a vision-language model on a dataset. This is the same as python -m vlmdata_train."""

import os
import shlex
import subprocess
import sys

import click

from vlmdata.process import interrupt
from vlmdata.verbs import COMPLETE, CompletionItem, Verb, argument

EXAMPLES = """
vlmdata train align tiny --set data=OUT --set out=RUN
vlmdata train chat RUN/checkpoints/step_00000060 photo.jpg
torchrun --nproc-per-node 8 -m vlmdata_train align --set data=OUT --set lr=1e-3
"""
HELP = "align, instruct, stages, evaluate, chat, serve or export, with its arguments"
TRAINER = [sys.executable, "-m", "vlmdata_train"]


class Train(Verb):
    """The verb `train`. The trainer, a separate program, completes its arguments."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete an option of the trainer's verb or, if the line names no verb yet, an option of `train` itself."""
        return verbs_of_trainer(ctx, None, incomplete) if ctx.params["words"] else super().shell_complete(ctx, incomplete)


def verbs_of_trainer(ctx: click.Context, param: click.Parameter | None, incomplete: str) -> list[CompletionItem]:
    """Run the trainer in a separate process, and return its completions of the word `incomplete`."""
    line = ["vlmdata_train", *(ctx.params["words"] or ()), incomplete]
    variables = {COMPLETE: "zsh_complete", "COMP_WORDS": shlex.join(line), "COMP_CWORD": str(len(line) - 1)}
    answer = subprocess.run(TRAINER, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True, check=True)
    fields = iter(answer.stdout.splitlines())  # three lines per completion: type, word, help
    return [CompletionItem(word, kind, help) for kind, word, help in zip(fields, fields, fields, strict=False)]


@click.command(cls=Train, context_settings={"allow_interspersed_args": False})
@argument("words", HELP, nargs=-1, type=click.UNPROCESSED, metavar="VERB ...", shell_complete=verbs_of_trainer)
def command(words: tuple[str, ...]) -> int:
    from vlmdata.notes import is_quiet

    silent = ["--quiet"] if words and is_quiet() else []
    with subprocess.Popen([*TRAINER, *(words[:1] or ["--help"]), *silent, *words[1:]]) as process, interrupt.handed_to(process):
        status = process.wait()
    return 128 - status if status < 0 else status
