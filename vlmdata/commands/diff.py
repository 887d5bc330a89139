"""List the rows that were added, removed or changed between two datasets, and the step that caused each change."""

import click

from vlmdata.verbs import Verb, argument, folders

EXAMPLES = "vlmdata diff OLD NEW"


@click.command(cls=Verb)
@argument("a", "a finished dataset", shell_complete=folders)
@argument("b", "another finished dataset, such as one that the same recipe built with other settings", shell_complete=folders)
def command(a: str, b: str) -> None:
    from vlmdata.compare import diff, tell

    print(tell(diff(a, b)))
