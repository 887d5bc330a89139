"""Measure loss and exact match of a checkpoint on a dataset."""

import click

from vlmdata.verbs import PATH, Verb, argument, folders

EXAMPLES = "vlmdata train evaluate runs/tiny/checkpoints/step_00000060 OUT --samples 200"


@click.command(cls=Verb)
@argument("checkpoint", "folder of a checkpoint", type=PATH, shell_complete=folders)
@argument("data", "a dataset, or tars", type=PATH, shell_complete=folders)
@click.option("--samples", type=int, default=256, show_default=True, metavar="N", help="number of samples")
@click.option("--answer-tokens", type=int, default=32, show_default=True, metavar="N", help="maximum tokens per answer")
@click.option(
    "--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True, help="where to compute"
)
def command(checkpoint: str, data: str, samples: int, answer_tokens: int, device: str) -> None:
    from vlmdata_train.checks import check_evaluation

    check_evaluation(checkpoint, data, samples=samples, answer_tokens=answer_tokens)
    from vlmdata_train.evaluate import evaluate_checkpoint

    print(evaluate_checkpoint(checkpoint, data, samples=samples, answer_tokens=answer_tokens, device=device))
