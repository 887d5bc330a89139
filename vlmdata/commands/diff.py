"""List the rows that were added, removed or changed between two datasets, and the step that caused each change."""

import dataclasses

import click

from vlmdata.verbs import PATH, Verb, argument, folders, json_option, print_json

EXAMPLES = """
vlmdata diff OLD NEW
vlmdata diff OLD NEW --json
"""


@click.command(cls=Verb)
@argument("a", "a finished dataset", type=PATH, shell_complete=folders)
@argument(
    "b",
    "another finished dataset, such as one that the same recipe built with other settings",
    type=PATH,
    shell_complete=folders,
)
@json_option
def command(a: str, b: str, as_json: bool) -> None:
    from vlmdata.compare import diff, tell

    changes = diff(a, b)
    if as_json:
        print_json({"old": a, "new": b, "changes": [dataclasses.asdict(change) for change in changes]})
    else:
        print(tell(changes))
