"""Write an index for WebDataset tars made by other tools, so that vlmdata can stream them."""

from pathlib import Path

import click

from vlmdata.verbs import PATH, Verb, argument, files, folders, json_option, print_json

EXAMPLES = """
vlmdata index shards/
vlmdata index 'shards/*.tar' --out index.parquet
"""


@click.command(cls=Verb)
@argument("tars", "the tars: a folder, a pattern such as 'shards/*.tar', or an address", type=PATH, shell_complete=folders)
@click.option(
    "--out",
    type=PATH,
    metavar="FILE",
    help="file to write (default: index.parquet in the folder of the tars)",
    shell_complete=files,
)
@click.option("--image-sizes", is_flag=True, help="also read each image's header for its width and height")
@json_option
def command(tars: str, out: str | None, image_sizes: bool, as_json: bool) -> None:
    from vlmdata.count_line import CountLine
    from vlmdata.loader.index.build_index import build_index
    from vlmdata.notes import tell

    with CountLine("indexing tars") as line:
        written = build_index(tars, out=Path(out) if out else None, image_sizes=image_sizes, report=line.show)
    if as_json:
        print_json({"index": str(written)})
    else:
        tell(str(written))
