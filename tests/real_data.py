"""The real data of ../shared/data, for the tests that need it."""

from pathlib import Path

import pytest

from bench.inputs.real_data import find


def real_data(path: str) -> Path:
    """Return the path of a file or folder of the real data. Skip the test if it does not exist."""
    found = find(path)
    if found is None:
        pytest.skip(f"needs the real data folder ../shared/data/{path}")
    return found
