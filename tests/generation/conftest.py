"""Fixtures for tests of generators."""

import os
import sys

import pytest


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """Return a folder whose modules this process and its workers can import."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    yield tmp_path
    sys.modules.pop("scripted_writer", None)
