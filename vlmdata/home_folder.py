"""Expands the `~` of paths that the user gives. A shell leaves it to the program in `--out=~/data` and `--set data=~/data`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

P = TypeVar("P", bound=str | Path)


def at_home(path: P) -> P:
    """Return a path of the user's with the home folder in place of a first `~` or `~user`, as a shell does it.

    Never call this for a name that data states: it must not lead out of its dataset.
    """
    return type(path)(os.path.expanduser(str(path))) if str(path).startswith("~") else path
