"""Write a checkpoint in the format of its family in transformers, or else as safetensors with a model card."""

from pathlib import Path

import click

from vlmdata.verbs import PATH, Verb, argument, folders

EXAMPLES = """
vlmdata train export runs/instruct/checkpoints/step_00005200 my-llava --dtype bfloat16
vlmdata train export runs/lora/checkpoints/step_00005200 my-adapter --adapter
"""


@click.command(cls=Verb)
@argument("checkpoint", "folder of a checkpoint", type=PATH, shell_complete=folders)
@argument(
    "folder", "a new or empty folder, for from_pretrained, vLLM or the Hugging Face Hub", type=PATH, shell_complete=folders
)
@click.option("--adapter", is_flag=True, help="write LoRA as an adapter of peft for the published model of `start`")
@click.option(
    "--dtype",
    type=click.Choice(("float32", "bfloat16", "float16")),
    help="data type of the weights (default: bfloat16 after a run with the precision bf16, otherwise float32)",
)
def command(checkpoint: str, folder: str, adapter: bool, dtype: str | None) -> None:
    from vlmdata.notes import tell
    from vlmdata_train.checks import check_export

    check_export(checkpoint, folder, adapter=adapter, dtype=dtype)
    from vlmdata_train.export import export
    from vlmdata_train.model.quiet import quiet

    with quiet():  # no progress bars for the written files
        export(Path(checkpoint), Path(folder), adapter=adapter, dtype=dtype)
    tell(folder)
