"""The version of this package, from the installed metadata or, in a checkout, from pyproject.toml."""

import importlib.metadata
import tomllib
from pathlib import Path


def version() -> str:
    """Return the version, such as "0.1.0"."""
    try:
        return importlib.metadata.version("vlmdata")
    except importlib.metadata.PackageNotFoundError:
        return tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]["version"]
