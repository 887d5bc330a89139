"""The log of a run, `work/logs/TIME-ID.jsonl`: when, with which version and recipe, what each stage counted, how it ended.

Counts and names of steps, no addresses and no texts; a takedown clears the lines that tell of errors all the same.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import uuid
from typing import Any

from vlmdata.engine.store.lease import holder
from vlmdata.engine.store.store_protocol import Store
from vlmdata.redact import redacted_tree

FOLDER = "work/logs"


class RunLog:
    """Written anew with each event, so that it stands also on an object store and when the run is killed.

    As a block it notes `failed` where that ends with an error or an interrupt.
    """

    def __init__(self, store: Store, recipe: dict[str, Any], **asked: Any):
        now = datetime.datetime.now(datetime.UTC)
        self._store = store
        self._name = f"{FOLDER}/{now:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:8]}.jsonl"
        self._lines: list[str] = []
        self.add("begin", version=importlib.metadata.version("vlmdata"), by=holder(), recipe=recipe, **asked)

    def add(self, event: str, **facts: Any) -> None:
        """Note an event: `begin`, `stage` (began), `counts` (of the stage that ended), `end` or `failed`."""
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._lines.append(json.dumps({"at": at, "event": event, **redacted_tree(facts)}, ensure_ascii=False))
        self._store.put(self._name, "".join(f"{line}\n" for line in self._lines).encode("utf-8", "replace"))

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.add("failed", error=f"{type(error).__name__}: {' '.join(str(error).split())[-1000:]}")


def clear_errors(store: Store) -> None:
    """Take what went wrong out of every log: an error's text may hold an address or a caption."""
    for name in store.list(FOLDER):
        lines = [json.loads(line) for line in store.read(name).decode().splitlines()]
        cleared = [{**line, "error": None} if line.get("error") else line for line in lines]
        if cleared != lines:
            store.put(name, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in cleared).encode())
