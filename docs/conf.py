"""The documentation site: `make docs` builds it from the pages of this folder and the docstrings, without the internet."""

from vlmdata import __version__

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
