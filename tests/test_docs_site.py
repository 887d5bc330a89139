"""The documentation site builds without a warning, so all links, references and docstrings of the public modules are valid."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_other_sites(tmp_path):
    pytest.importorskip("sphinx")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("api"))
    for name in PAGES:
        shutil.copy(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", "--jobs", "2"]
    done = subprocess.run([*command, tmp_path / "docs", tmp_path / "site"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for page in ("index.html", "api.html", "api/vlmdata.steps.language.html", "design.html"):
        html = (tmp_path / "site" / page).read_text()
        assert re.findall(r'<(?:script|img)[^>]*src="https?:|<link[^>]*rel="stylesheet"[^>]*href="https?:', html) == []
    assert "batch_size" in (tmp_path / "site" / "api.html").read_text()
    assert 'href="CONTRIBUTING.html#add-a-part-of-a-model"' in (tmp_path / "site" / "tour.html").read_text()
