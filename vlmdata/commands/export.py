"""Write a dataset as Parquet with image columns, as a Hugging Face dataset, as plain files or as chat messages."""

import click

from vlmdata import exports
from vlmdata.verbs import Verb, argument, folders, json_option, print_json

EXAMPLES = """
vlmdata export OUT --to parquet EXPORTED
vlmdata export OUT --to folder PICTURES
vlmdata export TALKS --to messages CHATS
"""


@click.command(cls=Verb)
@argument("out", "a finished dataset", shell_complete=folders)
@argument("target", "folder to write; it must not exist", shell_complete=folders)
@click.option("--to", "form", type=click.Choice(exports.names()), default="parquet", show_default=True, help="format to write")
@json_option
def command(out: str, target: str, form: str, as_json: bool) -> None:
    from vlmdata.export_dataset import export
    from vlmdata.redact import redacted

    samples = export(out, target, to=form)
    if as_json:
        print_json({"dataset": out, "target": target, "to": form, "samples": samples})
    else:
        print(f"{redacted(target)}: {samples:,} samples as {form}")
