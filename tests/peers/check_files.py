"""The checks in the folder `checks`, and their constants, which are read without importing the files."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKS = Path(__file__).parent / "checks"
NAMES = ("REQUIREMENTS", "EXPORTS", "INSTALL")


@dataclass(frozen=True)
class Wanted:
    """An export that a check reads. Without `to`, it is the dataset itself."""

    data: str
    to: str | None
    options: dict[str, Any]

    @property
    def title(self) -> str:
        """The export in a few words, for the table."""
        if self.to is None:
            return f"{self.data}, as built"
        return ", ".join((self.data, self.to, *(f"{name}: {value}" for name, value in self.options.items())))


@dataclass(frozen=True)
class Check:
    """One check: its file and its constants."""

    path: Path
    requirements: list[str]
    exports: list[Wanted]
    install: list[str]

    @property
    def name(self) -> str:
        """The peer's name, which is the name of the file."""
        return self.path.stem


def names() -> list[str]:
    """Return the names of all checks."""
    return sorted(path.stem for path in CHECKS.glob("*.py"))


def read(name: str) -> Check:
    """Return a check with its constants. Raises ValueError if one is missing or is no literal."""
    path = CHECKS / f"{name}.py"
    if not path.is_file():
        raise ValueError(f"there is no check '{name}'. The checks are {', '.join(names())}")
    found: dict[str, Any] = {"INSTALL": []}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        for target in targets:
            if isinstance(target, ast.Name) and target.id in NAMES:
                found[target.id] = _literal(path, target.id, node.value)
    for constant in NAMES:
        if constant not in found:
            raise ValueError(f"{path}: the constant {constant} is missing")
    exports = [Wanted(entry["data"], entry["to"], entry.get("options", {})) for entry in found["EXPORTS"]]
    return Check(path, list(found["REQUIREMENTS"]), exports, list(found["INSTALL"]))


def _literal(path: Path, name: str, value: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(value)
    except ValueError:
        raise ValueError(f"{path}: {name} must be a literal, because it is read without running the file") from None
