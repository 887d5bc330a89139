"""Write a dataset in another format: Parquet, files, or the form of other tools.

The same command continues an export that was interrupted. Samples that the format cannot hold are listed in the folder's
left_out.log. docs/formats.md lists the formats, what they hold, and their options.
"""

import click

from vlmdata import exports
from vlmdata.verbs import PATH, Verb, argument, folders, json_option, print_json

EXAMPLES = """
vlmdata export OUT --to parquet EXPORTED
vlmdata export OUT --to messages --set form=parquet CHATS
vlmdata export PAIRS --to llava --set prompt='Describe the image.' LLAVA
"""


@click.command(cls=Verb)
@argument("out", "a finished dataset", type=PATH, shell_complete=folders)
@argument("target", "folder to write; it must not exist", type=PATH, shell_complete=folders)
@click.option(
    "--to",
    "form",
    type=click.Choice(exports.names()),
    metavar="FORMAT",
    default="parquet",
    show_default=True,
    help=f"format to write: {', '.join(exports.names())}",
)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="set an option of the format, such as form=parquet"
)
@json_option
def command(out: str, target: str, form: str, settings: tuple[str, ...], as_json: bool) -> None:
    from vlmdata.export_dataset import export
    from vlmdata.notes import tell
    from vlmdata.recipe import read_settings
    from vlmdata.redact import redacted
    from vlmdata.sizes import counted

    samples = export(out, target, to=form, options=read_settings(settings))
    if as_json:
        print_json({"dataset": out, "target": target, "to": form, "samples": samples})
    else:
        tell(f"{redacted(target)}: {counted(samples, 'sample')} as {form}")
