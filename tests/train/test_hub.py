"""Without a connection to the hub, a name on it is refused at once, in one line and without warnings."""

import logging
import re
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint_folder import model_of
from vlmdata_train.languages.hf_causal import HfCausal
from vlmdata_train.model import hub


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the address of the hub one at which nothing listens."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    hub.is_reached.cache_clear()
    yield
    hub.is_reached.cache_clear()


@pytest.mark.usefixtures("unreachable")
def test_a_start_on_a_hub_that_cannot_be_reached_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    message = "start: vlmdata-tests/absent is not a checkpoint, and there is no published model .* The hub cannot be reached"
    with pytest.raises(RecipeError, match=f"^{message}"), caplog.at_level(logging.WARNING):
        model_of("vlmdata-tests/absent")
    assert caplog.messages == []


@pytest.mark.usefixtures("unreachable")
def test_a_language_model_on_a_hub_that_cannot_be_reached_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match=re.escape("couldn't connect to")):
        HfCausal(name="vlmdata-tests/absent").load_config()
    assert capfd.readouterr().err == ""


def test_a_folder_needs_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.prepare_hub(str(tmp_path))
    assert not constants.HF_HUB_OFFLINE and hub.is_reached.cache_info().currsize == 0
