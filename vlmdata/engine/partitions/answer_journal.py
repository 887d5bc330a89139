"""The journal of answers: each answer of a model is stored at once, so that a killed worker loses only those under way.

A journal belongs to one measurement of one partition. When the partition commits the measurement, its journal is deleted. Until
then, any attempt at the partition reads the answers of all earlier attempts.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from vlmdata.engine.store.store_protocol import Store
from vlmdata.generator import Answer

FOLDER = "work/answers"
READERS = 16  # files that are read at the same time; on an object store, each answer is a file


class AnswerJournal:
    """The journal of one attempt at a measurement. `known` holds the answers of earlier attempts by the question's id."""

    def __init__(self, store: Store, measure: str, partition: int):
        self.folder = folder_of(measure, partition)
        self._store = store
        self._writer: Any = None
        self._lock = threading.Lock()
        self.known: dict[str, Answer] = {}
        for line in _lines(store, self.folder):
            self.known.setdefault(line["id"], Answer(**line["answer"]))

    def add(self, question: str, key: str, answer: Answer) -> None:
        """Store an answer. `question` is the id of its question, and `key` the key of its row. Thread-safe."""
        with self._lock:
            if self._writer is None:
                self._writer = self._store.line_writer(self.folder)
        line = {"id": question, "key": key, "answer": asdict(answer)}
        self._writer.add(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass"))

    def close(self) -> None:
        """Make all answers durable and close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def folder_of(measure: str, partition: int) -> str:
    """Return the folder of the journals of a measurement and partition."""
    return f"{FOLDER}/{measure}/{partition:06d}"


def delete(store: Store, measure: str, partition: int) -> None:
    """Delete the journals of a measurement and partition. Call it after the measurement was committed."""
    folder = folder_of(measure, partition)
    if store.list(folder):
        store.delete_folder(folder)


def erase(store: Store, partitions: Collection[int], keys: Collection[str], digits: int) -> None:
    """Remove the answers about some rows from the journals of these partitions.

    `keys` are the first `digits` characters of the rows' keys.
    """
    for measure in store.folders(FOLDER):
        for folder in store.folders(measure):
            if int(folder.rpartition("/")[2]) not in partitions:
                continue
            for name in store.list(folder):
                lines = store.read(name).split(b"\n")
                left = [line for line in lines if (known := _parsed(line)) and known["key"][:digits] not in keys]
                if not left:
                    store.delete(name)
                elif len(left) < len(lines) - 1 or lines[-1]:
                    store.put(name, b"".join(line + b"\n" for line in left))


def _lines(store: Store, folder: str) -> Iterator[dict[str, Any]]:
    names = store.list(folder)
    with ThreadPoolExecutor(READERS) as pool:
        for data in pool.map(store.read, names) if names else ():
            yield from (line for line in map(_parsed, data.split(b"\n")) if line)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return a line, or None for the last line of a killed worker, which may be incomplete."""
    try:
        return json.loads(line.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
