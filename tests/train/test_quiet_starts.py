"""A start from a model in its authors' format shows no warning about its configurations."""

import logging
import warnings
from pathlib import Path

import pytest

from tests.train.original_internvl import WRITTEN as INTERNVL
from tests.train.original_internvl import write_internvl
from tests.train.original_llava import WRITTEN as LLAVA
from tests.train.original_llava import write_llava
from tests.train.test_published import loaded

pytestmark = pytest.mark.whole


@pytest.mark.parametrize("family", ["LLaVA", "InternVL"])
def test_a_start_in_its_authors_format_is_silent(family: str, tmp_path: Path) -> None:
    if family == "LLaVA":
        write_llava(LLAVA["1.5"], tmp_path / "original", tmp_path / "reference")
    else:
        write_internvl(INTERNVL["InternLM2"], tmp_path / "original", tmp_path / "reference")
    shown: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = shown.append  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            loaded(tmp_path / "original")
    finally:
        logger.removeHandler(handler)
    assert [record.getMessage() for record in shown] == []
