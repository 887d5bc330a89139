"""The journal of answers: each answer of a model is stored at once, so that a killed worker loses only those under way.

A journal belongs to one measurement of one partition. When the partition commits the measurement, its journal is deleted. Until
then, any attempt at the partition reads the answers of all earlier attempts.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from vlmdata.engine.store.store_protocol import Store
from vlmdata.generator import Answer

FOLDER = "work/answers"
READERS = 16  # files that are read at the same time; on an object store, each answer is a file


class Line(NamedTuple):
    """An answer, with the id of its question and the key of its row."""

    id: str
    key: str
    answer: Answer


class AnswerJournal:
    """The journal of one attempt at a measurement. `known` holds the answers of earlier attempts by the question's id.

    Answers that failed for a reason in `again` are left out, so that they are asked for again. They may be older than the last
    commit, if a worker was killed before it deleted the journal.
    """

    def __init__(self, store: Store, measure: str, partition: int, again: Collection[str] = ()):
        self.folder = folder_of(measure, partition)
        self._store = store
        self._writer: Any = None
        self._lock = threading.Lock()
        self.known: dict[str, Answer] = {}
        for line in _lines(store, self.folder):
            is_first = line.id not in self.known or self.known[line.id].failure is not None
            if is_first and line.answer.failure not in again:
                self.known[line.id] = line.answer

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
            number = folder.rpartition("/")[2]
            if not number.isdecimal() or int(number) not in partitions:
                continue
            for name in store.list(folder):
                lines = store.read(name).split(b"\n")
                left = [line for line in lines if (known := _parsed(line)) and known.key[:digits] not in keys]
                if not left:
                    store.delete(name)
                elif len(left) < len(lines) - 1 or lines[-1]:
                    store.put(name, b"".join(line + b"\n" for line in left))


def _lines(store: Store, folder: str) -> Iterator[Line]:
    names = store.list(folder)
    with ThreadPoolExecutor(READERS) as pool:
        for data in pool.map(store.read, names) if names else ():
            yield from (line for line in map(_parsed, data.split(b"\n")) if line)


def _parsed(line: bytes) -> Line | None:
    """Return a line, or None if it is damaged: a killed worker may leave its last line incomplete."""
    try:
        found = json.loads(line.decode("utf-8", "surrogatepass"))
        answer = Answer(**found["answer"])
        if answer.probabilities is not None:
            answer = replace(answer, probabilities=tuple(answer.probabilities))
        parsed = Line(found["id"], found["key"], answer)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return parsed if _is_right(parsed) else None


def _is_right(line: Line) -> bool:
    answer = line.answer
    texts = (answer.text, answer.finish, answer.failure)
    return (
        all(isinstance(name, str) for name in (line.id, line.key))
        and all(isinstance(text, str | None) for text in texts)
        and all(isinstance(count, int | float) and 0 <= count < 2**31 for count in (answer.prompt_tokens, answer.tokens))
        and isinstance(answer.seconds, int | float)
        and all(isinstance(one, int | float) and 0 <= one <= 1 for one in answer.probabilities or ())
    )
