"""Train a model on conversations."""

import click

from vlmdata.verbs import Verb
from vlmdata_train.train_verb import recipe_parameters, train

EXAMPLES = """
torchrun --nproc-per-node 8 -m vlmdata_train instruct --set data=CHATS --set start=runs/align/checkpoints/step_00002180
vlmdata train instruct --set data=CHATS --set start=llava-hf/llava-1.5-7b-hf
"""


@click.command(cls=Verb)
@recipe_parameters("instruct")
def command(recipe: str, settings: tuple[str, ...]) -> None:
    train(recipe, "instruct", settings)
