"""A journal that a killed worker left after its commit does not hold `retry` back."""

import os
import shutil
import sys

import pytest

from tests.generators.faults import status
from tests.generators.openai_server import OpenAIServer
from tests.generators.say import end, recipe, start
from vlmdata import retry

pytestmark = [pytest.mark.whole, pytest.mark.slow]


def test_retry_asks_again_although_an_old_journal_holds_the_failure(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))  # of the workers
    out, faults = tmp_path / "out", {1: status(503), 3: status(401)}
    with OpenAIServer(faults=lambda request: faults.get(request.number)) as server:
        file = recipe(tmp_path, server.url, 4, concurrency=1, retries=0)
        assert end(start(file, out))[0] == 1
        shutil.copytree(out / "work" / "answers", tmp_path / "answers")
        assert end(start(file, out))[0] == 0 and server.requests == 5  # the failure is committed, and its journal deleted
        shutil.copytree(tmp_path / "answers", out / "work" / "answers", dirs_exist_ok=True)  # as if the deletion was cut off
        manifest = retry(out, local=True, workers=1)
    assert server.requests == 6 and manifest["generations"]["own_say"]["failed"] == {}
