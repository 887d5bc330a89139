"""Where the real test data lies, for the tests that need it: beside the checkout, in ../shared/data."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


def real_data(path: str) -> Path:
    """Return the path of a file or folder of the real data, or skip the test that asks for it."""
    if not (ROOT / path).exists():
        pytest.skip(f"needs the real data folder ../shared/data/{path}")
    return ROOT / path
