"""Skips cases that the oldest versions of packages in pyproject.toml cannot do (`make oldest`)."""

import importlib.metadata
from typing import Any

import pytest


def since(value: object, package: str, *version: int) -> Any:
    """Return a value for `parametrize`. It is skipped with versions of the package that are older than, for example, 5, 1."""
    is_old = tuple(map(int, importlib.metadata.version(package).split(".")[:2])) < version
    name = getattr(value, "__name__", str(value))
    return pytest.param(value, marks=pytest.mark.skipif(is_old, reason=f"needs {package} {version}"), id=name)
