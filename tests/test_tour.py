"""The code that docs/tour.md and docs/design.md quote equals the source, and the files they name exist."""

import ast
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "docs" / name for name in ("tour.md", "design.md")]
QUOTE = re.compile(r"^ *```python\n *# (\S+\.py), ([\w.]+)\n(.*?)\n *```$", re.MULTILINE | re.DOTALL)
PACKAGES = ("vlmdata", "train/vlmdata_train", "")  # the folders to which a page's short paths are relative


def source_of(path: str, name: str) -> str:
    """Return the source of a function or method, without the indentation of its first line."""
    text = (ROOT / path).read_text()
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        node = next(one for one in node.body if getattr(one, "name", None) == part)
    return textwrap.dedent("\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno]))


def is_in(quote: str, source: str) -> bool:
    """Return whether the lines occur in the source without a gap, at any indentation."""
    lines, wanted = source.splitlines(), textwrap.dedent(quote).splitlines()
    pieces = ("\n".join(lines[at : at + len(wanted)]) for at in range(len(lines)))
    return textwrap.dedent(quote) in map(textwrap.dedent, pieces)


@pytest.mark.parametrize(
    ("path", "name", "code"), [pytest.param(*found, id=found[1]) for page in PAGES for found in QUOTE.findall(page.read_text())]
)
def test_each_quotation_equals_the_source(path, name, code):
    source = source_of(path, name)
    for piece in re.split(r"^ *\.\.\.$", code, flags=re.MULTILINE):
        assert is_in(piece.strip("\n"), source), f"{name} in {path} has changed: quote it again"


def test_the_tour_shows_five_functions_and_the_loop_over_steps_first():
    quoted = [name for _, name, _ in QUOTE.findall(PAGES[0].read_text())]
    assert len(quoted) == len(set(quoted)) == 5 and quoted[0].startswith("Worker.")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page):
    names = set(re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)`", page.read_text()))
    anywhere = {path.name for package in PACKAGES[:2] for path in (ROOT / package).rglob("*.py")}
    missing = [
        name for name in names if not any((ROOT / package / name).exists() for package in PACKAGES) and name not in anywhere
    ]
    assert len(names) > 5 and missing == []
