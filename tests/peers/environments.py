"""The environments of the peers: `.venv-peers/NAME`, which is made again when its check's requirements change."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.peers.check_files import Check

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-peers"


class NotInstalled(Exception):
    """Raised with the reason why an environment cannot be made on this machine."""


def environment(check: Check, folder: Path = FOLDER) -> Path:
    """Return the Python of a check's environment, and make the environment if it is missing or its requirements changed.

    Raises NotInstalled.
    """
    wanted = json.dumps({"python": sys.version, "requirements": check.requirements, "install": check.install})
    place = folder / check.name
    ready, python = place / ".ready", place / "bin" / "python"
    if ready.is_file() and ready.read_text() == wanted:
        return python
    shutil.rmtree(place, ignore_errors=True)
    uv = str(_uv(folder))
    _called(uv, "venv", "--quiet", "--python", sys.executable, str(place))
    _called(uv, "pip", "install", "--quiet", "--python", str(python), *check.install, *check.requirements)
    ready.write_text(wanted)
    return python


def _uv(folder: Path) -> Path:
    """Return the program uv, which is in an environment of its own."""
    place = folder / ".uv"
    if not (place / "bin" / "uv").is_file():
        _called(sys.executable, "-m", "venv", str(place))
        _called(str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv")
    return place / "bin" / "uv"


def _called(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line.strip(" │╰─▶×") for line in done.stderr.splitlines() if line.strip()]
        raise NotInstalled(" ".join(lines)[:400] or f"{command[0]} ended with {done.returncode}")
