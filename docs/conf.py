"""The documentation site: `make docs` builds it from the pages of this folder and the docstrings, without the internet."""

import re
from typing import Annotated, Any, Literal, get_type_hints

from vlmdata import __version__
from vlmdata.parameters import Doc

project = "vlmdata"
release = __version__
html_title = f"vlmdata {release}"
html_theme = "furo"
html_show_sourcelink = False
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3  # links to headings work as they do on GitHub
default_role = "code"  # docstrings write names between single backticks
autosummary_generate = True
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"


def links_within_the_site(app: Any, docname: str, source: list[str]) -> None:
    """Change links to `../PAGE.md`, which lead to its sections in the repository, to the page of the site that includes it."""
    source[0] = re.sub(r"\]\(\.\./([A-Z]+\.md)", r"](\1", source[0])


# names in types that a step has from a base class in another file
NAMES = {"Annotated": Annotated, "Doc": Doc, "GeneratorChoice": dict[str, Any], "Literal": Literal}


def types_without_docs(app: Any, obj: Any, bound_method: bool) -> None:
    """Show the types of a step's parameters without their `Doc`, which steps.md shows."""
    if any("Annotated[" in str(kind) for kind in getattr(obj, "__annotations__", {}).values()):
        obj.__annotations__ = get_type_hints(obj, localns=NAMES)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", links_within_the_site)
    app.connect("autodoc-before-process-signature", types_without_docs)
