"""An open generator `openai` whose endpoint is a test server, and what its callers get."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.generators.openai_server import OpenAIServer
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.engine.work.open_partition import StoredRecord
from vlmdata.generation.endpoint import Endpoint
from vlmdata.generator import Answer, Prompt, Sampling
from vlmdata.generators.openai import OpenAI


@contextlib.contextmanager
def opened(url: str, folder: Path, **options: Any) -> Iterator[Endpoint]:
    """Open the generator, with a record in a folder, and close it. No thread of it is left."""
    generator = OpenAI(**{"model": "tester", "url": url, "retries": 0, **options})
    generator.check()
    before = set(threading.enumerate())
    endpoint = generator.open(StoredRecord(LocalStore(folder), "record.json"))
    try:
        yield endpoint
    finally:
        endpoint.close()
        assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "vlmdata-ask"]


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(text, seed=number) for number, text in enumerate(texts)]


def answers(endpoint: Endpoint, asked: Sequence[Prompt], sampling: Sampling | None = None) -> list[Answer]:
    """Return the answers in the order of the prompts."""
    found: dict[int, Answer] = {}
    endpoint.answer(iter(asked), sampling or Sampling(), found.__setitem__)
    return [found[number] for number in range(len(asked))]


@contextlib.contextmanager
def asking(folder: Path, server: OpenAIServer, **options: Any) -> Iterator[tuple[OpenAIServer, Endpoint]]:
    """Start a server, and open the generator for it."""
    with server, opened(server.url, folder, **options) as endpoint:
        yield server, endpoint
