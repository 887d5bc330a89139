"""Write a checkpoint in the format of transformers' LLaVA."""

from pathlib import Path

import click

from vlmdata.verbs import Verb, argument, folders

EXAMPLES = "python -m vlmdata_train export runs/instruct/checkpoints/step_00005200 my-llava"


@click.command(cls=Verb)
@argument("checkpoint", "folder of a checkpoint", shell_complete=folders)
@argument("folder", "a new or empty folder, for from_pretrained, vLLM or the Hugging Face Hub", shell_complete=folders)
def command(checkpoint: str, folder: str) -> None:
    from vlmdata_train.checks import check_export

    check_export(checkpoint, folder)
    from vlmdata_train.export import export
    from vlmdata_train.model.quiet import quiet

    with quiet():  # no progress bars for the written files
        export(Path(checkpoint), Path(folder))
    print(folder)
