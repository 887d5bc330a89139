"""Serve a checkpoint over HTTP, in the form of OpenAI's API."""

import click

from vlmdata.verbs import PATH, Verb, argument, folders

EXAMPLES = """
vlmdata train serve runs/tiny/checkpoints/step_00000060 --port 8000
vlmdata train serve runs/instruct/checkpoints/step_00005200 --batch 32 --device cuda
"""


@click.command(cls=Verb)
@argument("checkpoint", "folder of a checkpoint", type=PATH, shell_complete=folders)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="address to listen at; everyone who can reach it can use the model",
)
@click.option("--port", type=int, default=0, show_default=True, metavar="N", help="port to listen at; 0 is any free port")
@click.option(
    "--batch", type=int, default=16, show_default=True, metavar="N", help="maximum requests that are answered together"
)
@click.option(
    "--device", type=click.Choice(("auto", "cpu", "cuda")), default="auto", show_default=True, help="where to compute"
)
@click.option("--until-stdin-closes", is_flag=True, help="end when standard input ends, so also when the parent process dies")
def command(checkpoint: str, host: str, port: int, batch: int, device: str, until_stdin_closes: bool) -> None:
    from vlmdata_train.checks import check_serving
    from vlmdata_train.serving.listener import bind, end_when_stdin_closes

    check_serving(checkpoint, port=port, batch=batch)
    bound = bind(host, port)
    if until_stdin_closes:
        end_when_stdin_closes()
    from vlmdata_train.serving.serve import serve

    serve(checkpoint, bound, batch=batch, device=device)
