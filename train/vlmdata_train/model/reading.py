"""Read a file of a published model with transformers, which raises errors of any class for a damaged file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vlmdata.process.shortage import is_short_of_memory
from vlmdata_train.model.hub import prepare_hub
from vlmdata_train.model.quiet import quiet


class Damaged(ValueError):
    """transformers cannot read a file. The message has the class and the text of its error, on one line."""


def read_published(load: Callable[..., Any], name: str, **options: Any) -> Any:
    """Return `load(name, ...)`, without transformers' warnings. Code in a folder is never run.

    `name` is a folder or a hub name. Raises OSError if there is no such file or no such model, and Damaged, with transformers'
    error as its cause, if a file cannot be read. An error for lack of memory is raised unchanged.
    """
    prepare_hub(name)
    try:
        with quiet():
            return load(name, trust_remote_code=False, **options)
    except OSError:
        raise
    except Exception as error:  # any content of a file that is not ours
        if is_short_of_memory(error):  # this says nothing about the file
            raise
        raise Damaged(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
