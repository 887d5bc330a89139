"""Suppress transformers' warnings about something that the trainer does on purpose.

This is only for warnings that no argument turns off. All other warnings are shown, because the user needs them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Show only the errors of transformers, without progress bars, inside a `with` block.

    Deprecation warnings are also suppressed: transformers gives them for old keys of published configurations.
    """
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
