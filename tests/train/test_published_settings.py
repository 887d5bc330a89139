"""Settings of a published model that are off are kept off, although they are on by default in the class."""

import json
from pathlib import Path

import pytest

from tests.train.published import write_published
from tests.train.test_published import edit_json, loaded
from vlmdata_train.convert.published import Published
from vlmdata_train.convert.save_published import save_published

pytestmark = pytest.mark.whole


@pytest.mark.parametrize("family", ["Pixtral", "Mistral 3", "Idefics2"])
def test_a_published_mistral_without_a_sliding_window_gets_none(family: str, tmp_path: Path) -> None:
    start = write_published(family, tmp_path / "start")
    text = json.loads((start / "config.json").read_text())["text_config"]
    assert text["sliding_window"] == 4096
    edit_json(start / "config.json", text_config={**text, "sliding_window": None})
    model = loaded(start)
    assert model.language.config.sliding_window is None
    save_published(model, tmp_path / "again")
    assert Published(str(tmp_path / "again")).config.text_config.sliding_window is None
