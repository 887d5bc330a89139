"""Train the abstractor on captions."""

import click

from vlmdata.verbs import Verb
from vlmdata_train.train_verb import recipe_parameters, train

EXAMPLES = """
vlmdata train align tiny --set data=OUT --set out=runs/tiny
torchrun --nproc-per-node 8 -m vlmdata_train align --set data=OUT --set lr=1e-3
"""


@click.command(cls=Verb)
@recipe_parameters("align")
def command(recipe: str, settings: tuple[str, ...]) -> None:
    train(recipe, "align", settings)
