"""Chat with a checkpoint about images and videos."""

from typing import Any

import click

from vlmdata.verbs import PATH, Verb, argument, files, folders

EXAMPLES = """
vlmdata train chat runs/tiny/checkpoints/step_00000060 photo.jpg
vlmdata train chat runs/tiny/checkpoints/step_00000060 --image a.jpg --image b.jpg --ask "What differs?" --beams 4
vlmdata train chat runs/tiny/checkpoints/step_00000060 --video frames --fps 2 --temperature 0.7 --top-p 0.9
"""


@click.command(cls=Verb)
@argument("checkpoint", "folder of a checkpoint", type=PATH, shell_complete=folders)
@argument("image", "image files, shown before the first question", nargs=-1, type=PATH, shell_complete=files)
@click.option(
    "--image",
    "more_images",
    multiple=True,
    metavar="FILE",
    type=PATH,
    shell_complete=files,
    help="one more image file, after those given as arguments; may be repeated",
)
@click.option(
    "--video",
    multiple=True,
    metavar="FOLDER",
    type=PATH,
    shell_complete=folders,
    help="folder of image files that are the frames of a video, in the order of their names; shown after the images",
)
@click.option("--fps", type=float, default=1.0, show_default=True, metavar="NUMBER", help="frames per second of --video")
@click.option("--ask", metavar="TEXT", help="ask one question and exit (default: read questions from stdin, one per line)")
@click.option("--max-tokens", type=int, default=256, show_default=True, metavar="N", help="maximum tokens per answer")
@click.option(
    "--temperature",
    type=float,
    metavar="NUMBER",
    help="sampling temperature; 0 takes the most likely token (default: 1 with --top-k or --top-p, otherwise 0)",
)
@click.option("--top-k", type=int, metavar="N", help="sample from the N most likely tokens (default: from all)")
@click.option(
    "--top-p",
    type=float,
    default=1.0,
    show_default=True,
    metavar="NUMBER",
    help="sample from the most likely tokens whose probabilities sum to this number",
)
@click.option("--beams", type=int, default=1, show_default=True, metavar="N", help="beams of beam search; 1 means none")
@click.option(
    "--length-penalty",
    type=float,
    default=1.0,
    show_default=True,
    metavar="NUMBER",
    help="beam search compares answers by log-probability / tokens to the power of this number: larger favours longer answers",
)
@click.option(
    "--repetition-penalty",
    type=float,
    default=1.0,
    show_default=True,
    metavar="NUMBER",
    help="above 1, makes tokens that are already in the conversation less likely",
)
@click.option("--seed", type=int, metavar="N", help="seed of sampling, the same for each answer (default: random)")
@click.option(
    "--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True, help="where to compute"
)
def command(
    checkpoint: str, image: tuple[str, ...], more_images: tuple[str, ...], video: tuple[str, ...], fps: float,
    ask: str | None, max_tokens: int, device: str, **decoding: Any,
) -> None:  # fmt: skip
    from vlmdata_train.checks import check_chat, read_decoding

    how, images = read_decoding(**decoding), (*image, *more_images)
    check_chat(checkpoint, images, video, max_tokens=max_tokens, fps=fps)
    from vlmdata_train.chat import Conversation, talk

    conversation = Conversation.open(
        checkpoint, images, device=device, max_tokens=max_tokens, decoding=how, videos=video, fps=fps
    )
    if ask is not None:
        print(conversation.ask(ask))
    else:
        talk(conversation)
