"""A missing extra is named in one line, with the command that installs it."""

import sys
from pathlib import Path

import pytest

from vlmdata.errors import RecipeError
from vlmdata.extras import check_installed, required


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kenlm", None)  # as if it were not installed
    with pytest.raises(
        RecipeError, match=r"^step perplexity needs the package 'kenlm', .*pip install 'vlmdata\[perplexity\]'$"
    ):
        required("kenlm", "step perplexity")


def test_a_package_that_fails_to_import_is_reported_with_its_own_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "s3fs.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "s3fs", raising=False)
    with pytest.raises(RecipeError, match=r"store needs the package 's3fs', which cannot be imported: .*no_such_module"):
        required("s3fs", "store")


def test_all_missing_packages_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"torch": None, "ray": None}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found.get(name, "installed"))
    with pytest.raises(RecipeError, match=r"the packages 'ray', 'torch', .*pip install 'vlmdata\[clip,ray\]'"):
        check_installed(["ray", "torch.nn", "s3fs"], "run")
    check_installed(["s3fs"], "run")
