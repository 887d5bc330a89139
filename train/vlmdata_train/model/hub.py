"""Work without the Hugging Face Hub if it cannot be reached, instead of trying again for each file.

huggingface_hub tries five times, for 23 seconds, and prints a warning each time, for each file that is not in its cache.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from huggingface_hub import constants, get_session


def prepare_hub(name: str) -> None:
    """If `name` is no folder and the hub cannot be reached, use only the hub's cache, as with HF_HUB_OFFLINE=1."""
    if not constants.HF_HUB_OFFLINE and not Path(name).is_dir() and not is_reached():
        constants.HF_HUB_OFFLINE = True


def offline_hint() -> str:
    """Return the end of a message about a model that was not found: empty, or that only the hub's cache was searched."""
    return ". The hub cannot be reached, or HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""


@cache
def is_reached() -> bool:
    """Return whether the hub answers one of two requests, with any status. This is asked once in a process."""
    for _ in range(2):
        try:
            get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            return True
        except Exception:  # versions of huggingface_hub use other libraries for HTTP, whose errors have no common class
            continue
    return False
