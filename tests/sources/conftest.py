import pytest


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Keep the datasets library's converted copies in the test's folder, and block requests to the Hub."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
