"""Chat with a checkpoint about images."""

import click

from vlmdata.verbs import Verb, argument, files, folders

EXAMPLES = """
python -m vlmdata_train chat runs/tiny/checkpoints/step_00000060 photo.jpg
python -m vlmdata_train chat runs/tiny/checkpoints/step_00000060 photo.jpg --ask "What is in the picture?"
"""


@click.command(cls=Verb)
@argument("checkpoint", "folder of a checkpoint", shell_complete=folders)
@argument("image", "image files, shown before the first question", nargs=-1, shell_complete=files)
@click.option("--ask", metavar="TEXT", help="ask one question and exit (default: read questions from stdin, one per line)")
@click.option("--max-tokens", type=int, default=256, show_default=True, metavar="N", help="maximum tokens per answer")
@click.option(
    "--temperature",
    type=float,
    default=0.0,
    show_default=True,
    metavar="NUMBER",
    help="sampling temperature; 0 means greedy decoding",
)
@click.option(
    "--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True, help="where to compute"
)
def command(checkpoint: str, image: tuple[str, ...], ask: str | None, max_tokens: int, temperature: float, device: str) -> None:
    from vlmdata_train.checks import check_chat

    check_chat(checkpoint, image, max_tokens=max_tokens, temperature=temperature)
    from vlmdata_train.chat import Conversation, talk

    conversation = Conversation.open(checkpoint, image, device=device, max_tokens=max_tokens, temperature=temperature)
    if ask is not None:
        print(conversation.ask(ask))
    else:
        talk(conversation)
