"""Run `vlmdata check` and `vlmdata run` on small recipes in this process."""

import json
import os
from pathlib import Path
from typing import Any

from vlmdata.cli import main

FETCH: list[Any] = [{"download": {"contact": "a@b.org"}}, "resize"]


def check(folder: Path, source: dict[str, Any], steps: list[Any] = FETCH, *arguments: str) -> int:
    """Write a recipe into the folder, check it there, and return the exit status."""
    os.chdir(folder)  # pytest's monkeypatch restores it: see tests/preflight/conftest.py
    Path("r.yaml").write_text(json.dumps({"source": source, "steps": steps}))
    return main(["check", "r.yaml", *arguments])


def lines_of_run(recipe: str, out: str, capsys: Any) -> list[str]:
    """Return the lines on stderr of a run that must stop before work."""
    assert main(["run", recipe, "--out", out, "--local"]) == 2
    return capsys.readouterr().err.splitlines()
