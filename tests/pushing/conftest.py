"""A finished dataset, and the stand-in for the Hub to which the tests of this folder push it."""

import shutil

import pytest
from huggingface_hub import constants

from tests.engine.site import site
from tests.hub_server import TOKEN, HubServer
from vlmdata import run


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push")
    with site(folder, 48, samples=20) as web:
        run(web.recipe, folder / "out", local=True, workers=1)
    return folder / "out"


@pytest.fixture
def out(built, tmp_path):
    return shutil.copytree(built, tmp_path / "out")


@pytest.fixture
def hub(monkeypatch):
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server
