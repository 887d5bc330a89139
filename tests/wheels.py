"""Builds the wheel, and installs it with a chosen set of extras in a new virtual environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def build(folder: Path, *kinds: str) -> list[Path]:
    """Build a "wheel", an "sdist" or both in `folder`, and return their paths."""
    options = [word for kind in kinds for word in ("-t", kind)]
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder), *options], cwd=ROOT, check=True, capture_output=True
    )
    return sorted(folder.iterdir())


def clean_environment() -> dict[str, str]:
    """Return the variables of this process without those that make Python find the packages of this checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def install(wheel: Path, folder: Path) -> tuple[Path, int]:
    """Install a wheel alone in a new environment, and return its Python and the bytes that pip added.

    Skip the test if no package index can be reached.
    """
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True)
    packages = next(folder.glob("lib/python3*/site-packages"))
    before = disk_bytes(packages)
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-input", "--retries", "0", str(wheel)]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no package index is reachable: {done.stderr.strip().splitlines()[-1][:200]}")
    return python, disk_bytes(packages) - before


def disk_bytes(folder: Path) -> int:
    """Return the bytes that the files of a folder take on disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
