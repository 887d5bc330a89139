"""The client trusts certifi's authorities, or those of the system if certifi is not installed."""

import ssl
import sys
from pathlib import Path

import certifi
import pytest

from vlmdata.errors import RecipeError
from vlmdata.web.authorities import authorities, system_authorities


def test_certifi_is_used_if_it_is_installed() -> None:
    assert authorities() == certifi.where()


def test_without_certifi_the_file_of_the_system_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bundle.pem").write_text("authorities")
    monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(tmp_path / "none.pem"))
    assert system_authorities((str(tmp_path / "absent.pem"), str(tmp_path / "bundle.pem"))) == str(tmp_path / "bundle.pem")


def test_without_any_file_the_message_names_three_remedies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "certifi", None)  # as if it were not installed
    monkeypatch.setenv(ssl.get_default_verify_paths().openssl_cafile_env, str(tmp_path / "none.pem"))
    with pytest.raises(RecipeError, match=r"pip install certifi, .*ca-certificates, .*download\.ca_file"):
        system_authorities(())
