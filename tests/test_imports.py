"""Imports point one way, as docs/design.md shows: without circles of files or of rooms, and never upwards.

Imports inside functions and those for the type checker count too. A room is a file or folder that the diagram names.
"""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"vlmdata": ROOT / "vlmdata", "vlmdata_train": ROOT / "train" / "vlmdata_train"}


def drawn(package: str) -> list[list[str]]:
    """Return the rooms of a package from top to bottom, with those of one line grouped."""
    text = (ROOT / "docs" / "design.md").read_text()
    block = re.search(rf"^    {package}\n((?:    .+\n)+)", text, re.MULTILINE)
    assert block, f"docs/design.md draws no order of {package}"
    return [line.split() for line in block[1].splitlines()]


def files(package: str) -> dict[str, Path]:
    """Return the modules of a package: dotted name without the package ("" for the package itself) -> file."""
    found = {}
    for path in PACKAGES[package].rglob("*.py"):
        parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(text: str, package: str, known: set[str]) -> set[str]:
    """Return the modules of a package that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if without(name, package) in known else node.module for name in names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {without(name, package) for name in names if name.split(".")[0] == package}
    return found


def without(name: str, package: str) -> str:
    return name.removeprefix(package).removeprefix(".")


def graph(package: str) -> dict[str, set[str]]:
    modules = files(package)
    return {name: imports(path.read_text(), package, set(modules)) - {name} for name, path in modules.items()}


def room_of(module: str, rooms: list[str]) -> str:
    """Return the room of a module, which is the longest room name that its path begins with."""
    path = module.replace(".", "/") or "__init__"
    return max((room for room in rooms if path == room or path.startswith(f"{room}/")), key=len, default="")


def circle(edges: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_has_a_room_and_every_room_exists(package):
    rooms = [room for line in drawn(package) for room in line]
    modules = files(package)
    assert [name for name, path in modules.items() if path.name != "__init__.py" and not room_of(name, rooms)] == []
    assert [room for room in rooms if not any(room_of(name, rooms) == room for name in modules)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_imports_in_a_circle(package):
    assert circle(graph(package)) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_points_upwards_or_makes_a_circle_of_rooms(package):
    lines = drawn(package)
    rooms = [room for line in lines for room in line]
    height = {room: -number for number, line in enumerate(lines) for room in line}
    edges: dict[str, set[str]] = {}
    up = []
    for module, others in graph(package).items():
        here = room_of(module, rooms)
        for other in others:
            there = room_of(other, rooms)
            if not here or not there or here == there:
                continue
            edges.setdefault(here, set()).add(there)
            if height[there] > height[here]:
                up.append(f"{module} imports {other}")
    assert up == []
    assert circle(edges) == []


def test_imports_are_found_anywhere_in_a_file():
    known = {"row", "engine.plan", "steps.language"}
    text = """
from typing import TYPE_CHECKING
import vlmdata.row
if TYPE_CHECKING:
    from vlmdata.engine.plan import Plan
def f():
    from vlmdata.steps import language, other
"""
    assert imports(text, "vlmdata", known) == {"row", "engine.plan", "steps.language", "steps"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []
