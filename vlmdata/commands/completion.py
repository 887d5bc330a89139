"""Print the script that completes verbs, options, recipes and paths in bash, zsh or fish."""

import click
from click.shell_completion import get_completion_class

from vlmdata.verbs import COMPLETE, Verb, argument

EXAMPLES = """
eval "$(vlmdata completion bash)"                                       # in ~/.bashrc
eval "$(vlmdata completion zsh)"                                        # in ~/.zshrc, after compinit
vlmdata completion fish > ~/.config/fish/completions/vlmdata.fish
"""


@click.command(cls=Verb)
@argument("shell", "bash, zsh or fish", type=click.Choice(("bash", "zsh", "fish")), metavar="SHELL")
def command(shell: str) -> None:
    program = click.get_current_context().find_root()
    completion = get_completion_class(shell)
    assert completion is not None
    print(completion(program.command, {}, "vlmdata", COMPLETE).source())
