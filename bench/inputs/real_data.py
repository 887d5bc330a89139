"""Where the real data lies: beside the checkout, in ../shared/data."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent / "shared" / "data"


def find(path: str) -> Path | None:
    """Return the path of a file or folder of the real data, None where it is not there."""
    found = ROOT / path
    return found if found.exists() else None
