"""The log of a run, `work/logs/TIME-ID.jsonl`: time, version, recipe, the counts of each stage, and how the run ended.

The log holds counts and names of steps, but no addresses or texts. Error messages may quote an address or a text, so a takedown
removes them from the log.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import uuid
from collections import Counter
from typing import Any, NamedTuple

from vlmdata.engine.store.lease import holder
from vlmdata.engine.store.store_protocol import Store
from vlmdata.redact import redacted_tree

FOLDER = "work/logs"


class RunLog:
    """A log whose file is rewritten at each event, so that it works on an object store and stays complete if the run is killed.

    If the `with` block of the log ends with an error or an interrupt, the event `failed` is logged.
    """

    def __init__(self, store: Store, recipe: dict[str, Any], **options: Any):
        now = datetime.datetime.now(datetime.UTC)
        self._store = store
        self.run = uuid.uuid4().hex[:8]  # the name of the run
        self._name = f"{FOLDER}/{now:%Y%m%dT%H%M%S.%fZ}-{self.run}.jsonl"
        self._lines: list[str] = []
        self.add("begin", version=importlib.metadata.version("vlmdata"), by=holder(), recipe=recipe, **options)

    def add(self, event: str, **facts: Any) -> None:
        """Log an event: `begin`, `stage` (a stage starts), `counts` (of the stage that ended), `end` or `failed`."""
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._lines.append(json.dumps({"at": at, "event": event, **redacted_tree(facts)}, ensure_ascii=False))
        self._store.put(self._name, "".join(f"{line}\n" for line in self._lines).encode("utf-8", "replace"))

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.add("failed", error=f"{type(error).__name__}: {' '.join(str(error).split())[-1000:]}")


class LoggedRun(NamedTuple):
    """A run as its log states it: the recipe, the reasons for which it fetched again, and whether it ended."""

    recipe: dict[str, Any]
    again: list[str]
    has_ended: bool
    measured: dict[str, int]  # step: rows that it measured in this run


def logged_runs(store: Store) -> list[LoggedRun]:
    """Return the runs whose logs are in the dataset, oldest first. A log that cannot be read is left out."""
    found = []
    for name in sorted(store.list(FOLDER)):
        try:
            lines = [json.loads(line) for line in store.read(name).decode().splitlines()]
        except (ValueError, RecursionError, FileNotFoundError):  # damaged, or removed meanwhile
            continue
        if lines and all(isinstance(line, dict) for line in lines) and isinstance(lines[0].get("recipe"), dict):
            again = lines[0].get("again")
            names = [one for one in again if isinstance(one, str)] if isinstance(again, list) else []
            found.append(LoggedRun(lines[0]["recipe"], names, lines[-1].get("event") == "end", _measured(lines)))
    return found


def _measured(lines: list[dict[str, Any]]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for line in lines:
        if isinstance(facts := line.get("measured"), dict):
            sums.update({step: rows for step, rows in facts.items() if isinstance(rows, int)})
    return dict(sums)


def clear_errors(store: Store) -> None:
    """Remove error messages from every log, because they may quote an address or a caption."""
    for name in store.list(FOLDER):
        lines = [json.loads(line) for line in store.read(name).decode().splitlines()]
        cleared = [{**line, "error": None} if line.get("error") else line for line in lines]
        if cleared != lines:
            store.put(name, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in cleared).encode())
