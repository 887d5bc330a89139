"""Tests and benchmarks use only public names of the product, and benchmarks do not import tests."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OTHERS = {  # private names of other libraries
    "_exit": "os documents it",
    "_dynamo": "torch has no public count of compiled graphs",
    "_get_number_of_features": "transformers has no public way to count the tokens of an image without its pixels",
    "_augmentation_space": "torchvision has no public table of RandAugment's magnitudes",
    "_forward_hooks": "torch has no public list of a module's hooks",
    "_forward_pre_hooks": "torch has no public list of a module's hooks",
    "_prepend_local_ids": "transformers has no public way to write an image's number",
}
# calls that take the name of an attribute; `object` belongs to mock
BY_NAME = ("getattr", "setattr", "delattr", "hasattr", "object")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in OTHERS


def is_product(module: str | None) -> bool:
    return (module or "").split(".")[0] in ("vlmdata", "vlmdata_train")


def names_in(node: ast.AST) -> list[str]:
    """Return the names that a node imports from the product, reads from an object, or contains as a string."""
    match node:
        case ast.ImportFrom() if is_product(node.module):
            return [*str(node.module).split("."), *(alias.name for alias in node.names)]
        case ast.Import():
            return [part for alias in node.names if is_product(alias.name) for part in alias.name.split(".")]
        case ast.Attribute(value=ast.Name(id="self" | "cls")):
            return []  # names of the class itself are found by names_inherited
        case ast.Attribute():
            return [node.attr]
        case ast.Constant(value=str(text)) if is_product(text) and re.fullmatch(r"[\w.]+", text):
            return text.split(".")
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[_, ast.Constant(value=str(text)), *_]):
            return [text] if called in BY_NAME else []
    return []


def names_inherited(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and name of each attribute that a subclass of a product's class reads from self but does not define."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and is_product(node.module)]
    bound = {alias.asname or alias.name for node in imports for alias in node.names}
    for made in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        if bound.isdisjoint(name.id for base in made.bases for name in ast.walk(base) if isinstance(name, ast.Name)):
            continue
        own = {node.name for node in ast.walk(made) if isinstance(node, ast.FunctionDef)}
        taken = [node for node in ast.walk(made) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"]
        own |= {node.attr for node in taken if isinstance(node.ctx, ast.Store)}
        yield from ((node.lineno, node.attr) for node in taken if node.attr not in own)


def private_names(code: str) -> list[tuple[int, str]]:
    """Return the line and name of each private name outside OTHERS that code imports, reads or patches."""
    tree = ast.parse(code)
    found = [(getattr(node, "lineno", 0), name) for node in ast.walk(tree) for name in names_in(node)]
    return sorted({(line, name) for line, name in [*found, *names_inherited(tree)] if is_private(name)})


def crossings(code: str) -> list[tuple[int, str]]:
    """Return the line and the name of each import from tests, and of each use of sys.path."""
    found = []
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.ImportFrom(module=str(module)):
                names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.Attribute():
                names = [ast.unparse(node)]
            case _:
                continue
        found += [(node.lineno, name) for name in names if name == "sys.path" or name.split(".")[0] == "tests"]
    return found


def imports_of_the_trainer(code: str) -> list[tuple[int, str]]:
    """Return the line and the name of each import of vlmdata_train, including imports inside functions."""
    found = []
    for node in ast.walk(ast.parse(code)):
        names = [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found += [(node.lineno, "vlmdata_train") for name in names if name.split(".")[0] == "vlmdata_train"]
    return found


def violations(folder: str, look) -> list[str]:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    return [f"{path.relative_to(ROOT)}:{line}: {name}" for path in files for line, name in look(path.read_text())]


@pytest.mark.parametrize("folder", ["tests", "bench"])
def test_no_private_name_of_the_product_is_imported_read_or_patched(folder):
    assert violations(folder, private_names) == []


def test_the_product_does_not_import_its_trainer():
    assert violations("vlmdata", imports_of_the_trainer) == []
    for code in ("import vlmdata_train", "def run():\n    from vlmdata_train.recipe import Recipe"):
        assert len(imports_of_the_trainer(code)) == 1


def test_no_benchmark_imports_tests_or_changes_the_import_path():
    assert violations("bench", crossings) == []


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from vlmdata.build import _workers", "_workers"),
        ("from vlmdata_train._parts import Part", "_parts"),
        ("import vlmdata._hidden.part as part", "_hidden"),
        ("pools[0]._pace.kill()", "_pace"),
        ("build._workers = inline", "_workers"),
        ("monkeypatch.setattr(build, '_workers', inline)", "_workers"),
        ("monkeypatch.setattr('vlmdata.build._workers', inline)", "_workers"),
        ("mock.patch.object(build, '_workers')", "_workers"),
        ("getattr(pace, '_hosts', None)", "_hosts"),
        ("from vlmdata.web import dns\nclass Mine(dns.Dns):\n    def hosts(self):\n        return self._hosts", "_hosts"),
    ],
)
def test_each_use_of_a_private_name_is_found(code, name):
    assert [found for _, found in private_names(code)] == [name]


@pytest.mark.parametrize(
    "code",
    [
        "from vlmdata.build import run",
        "from tests.engine.site import _own",
        "class Own:\n    def add(self):\n        self._count += 1",
        "from vlmdata.web.robots import Robots\nclass Mine(Robots):\n    def go(self):\n        self._left = self._left + 1",
        "monkeypatch.setattr('vlmdata.engine.partitions.plan.IN_MEMORY_BYTES', 1)",
        "Reading.__call__ = read",
        "os._exit(1)",
    ],
)
def test_public_names_and_names_of_tests_are_not_reported(code):
    assert private_names(code) == []


def test_each_use_of_tests_in_a_benchmark_is_found():
    for code in ("import tests.servers", "from tests import servers", "sys.path[:0] = ['.']", "from sys import path"):
        assert len(crossings(code)) > 0
    assert crossings("from bench.inputs.tars import jpeg\nsys.exit(path.read_text())") == []
