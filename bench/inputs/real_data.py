"""Find the real data, which is stored beside the checkout in ../shared/data."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent / "shared" / "data"


def find(path: str) -> Path | None:
    """Return the path of a file or folder of the real data, or None if it does not exist."""
    found = ROOT / path
    return found if found.exists() else None
