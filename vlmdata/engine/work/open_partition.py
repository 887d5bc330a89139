"""A partition that a worker has open: the context of the steps that measure it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from vlmdata.engine.partitions.answer_journal import AnswerJournal
from vlmdata.engine.partitions.partition_log import PartitionBlob
from vlmdata.engine.partitions.tombstones import Tombstones
from vlmdata.engine.store.blob_bytes import read_blob
from vlmdata.engine.store.store_protocol import Store
from vlmdata.engine.work.own_steps import check_probabilities, run_generator, unanswered
from vlmdata.generator import Answer, Generator, OpenGenerator, Prompt, RunRecord, Sampling
from vlmdata.step import Question

if TYPE_CHECKING:
    from vlmdata.steps.download import Download
    from vlmdata.web.client import Client

T = TypeVar("T")

NOTES = "work/notes"
RUNS = "work/runs"


class Keep:
    """Holds the objects that a worker keeps between partitions, such as its web client and models. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._kept: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], T]) -> T:
        """Return the object of this name. The first call makes it."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if name not in self._kept:
                self._kept[name] = make()
            return self._kept[name]

    def close(self) -> None:
        """Close every object that has a `close`."""
        for kept in self._kept.values():
            if hasattr(kept, "close"):
                kept.close()
        self._kept.clear()


class StoredRecord:
    """A RunRecord in a file of the dataset's folder `work`."""

    def __init__(self, store: Store, name: str):
        self._store = store
        self._name = name

    def read(self) -> dict[str, float]:
        try:
            return json.loads(self._store.read(self._name))
        except FileNotFoundError:
            return {}

    def write(self, values: Mapping[str, float]) -> None:
        self._store.put(self._name, json.dumps(dict(values)).encode())


class OpenPartition:
    """An open partition, with the blob that its images are written to."""

    def __init__(
        self,
        store: Store,
        number: int,
        keep: Keep,
        decoding: threading.Lock,
        rate_limiter: Any,
        tombstones: Tombstones,
        run: str = "",
    ):
        self.store = store
        self.number = number
        self.blob = PartitionBlob(store, number)
        self.decoding = decoding
        self.rate_limiter = rate_limiter
        self.tombstones = tombstones  # images that must not be stored again
        self.run = run  # the name of the run
        self.again: tuple[str, ...] = ()  # reasons of failures that a retry asks for again
        self.guilty: frozenset[int] = frozenset()  # positions of images that killed a decoder
        self.journal_file: Any = None  # file that records the image being decoded, to find an image that crashes the worker
        self.measuring = ""  # the name of the measurement that runs now
        self.measured: dict[str, int] = {}  # name of a measurement: number of rows that were measured in this call
        self.fresh: dict[str, Any] = {}  # name of a measurement: bool array of the rows that were measured in this call
        self.asked: set[str] = set()  # names of the measurements that have a journal of answers
        self._keep = keep

    def image_bytes(self, blob: str, offset: int, size: int) -> bytes:
        """Return the encoded bytes of an image, even if this partition wrote the image and has not committed it yet."""
        if blob == self.blob.name:
            return self.blob.read(offset, size)
        return read_blob(self.store, blob, offset, size)

    def store_image(self, data: bytes) -> tuple[str, int]:
        """Append the encoded bytes of an image to the partition's blob. Return the blob's name and the offset."""
        return self.blob.name, self.blob.add(data)

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """Return the object that the worker keeps under this name between partitions. The first call makes it."""
        return self._keep.get(name, make)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Store facts about the running measurement, such as its model, for the manifest.

        A worker writes facts only once, even if it is given the same facts again.
        """
        text = json.dumps(facts, sort_keys=True)
        name = f"{NOTES}/{self.measuring}.{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
        self._keep.get(name, lambda: self.store.put_new(name, text.encode()))

    def ask(self, generator: Generator, sampling: Sampling, questions: Sequence[Question]) -> list[Answer]:
        """Return the answer to each question, in order. Answers in the journal of this measurement are not asked for again."""
        self.asked.add(self.measuring)
        journal = AnswerJournal(self.store, self.measuring, self.number, self.again)
        left = [question for question in questions if question.id not in journal.known]
        if left:
            opened = self._keep.get(f"generator {generator!r}", lambda: self._open(generator))
            self.note(opened.facts)
            sent: list[tuple[Question, int]] = []  # with the number of the prompt's choices

            def store(question: Question, answer: Answer) -> None:
                journal.add(question.id, question.key, answer)
                journal.known[question.id] = answer

            def done(number: int, answer: Answer) -> None:
                question, choices = sent[number]
                check_probabilities(generator, choices, answer)
                store(question, answer)

            def prompts() -> Iterator[Prompt]:
                for question in left:
                    made = question.make()
                    if isinstance(made, Prompt):
                        sent.append((question, len(made.choices)))
                        yield made
                    else:
                        store(question, Answer(failure=made))

            try:
                run_generator(generator, lambda: opened.answer(prompts(), sampling, done))
            finally:
                journal.close()
                self.note(opened.facts)  # an endpoint may say only with an answer which model it is
        if missing := sum(question.id not in journal.known for question in left):
            raise unanswered(generator, missing, len(left))
        return [journal.known[question.id] for question in questions]

    def _open(self, generator: Generator) -> OpenGenerator:
        return run_generator(generator, lambda: generator.open(self._run_record(generator)))

    def _run_record(self, generator: Generator) -> RunRecord:
        name = hashlib.sha256(repr(generator).encode()).hexdigest()[:8]
        return StoredRecord(self.store, f"{RUNS}/{self.run}-{name}.json")

    def client(self, options: Download) -> Client:
        """Return the worker's web client, which all its partitions share."""
        from vlmdata.web.client import Client

        return self._keep.get("client", lambda: Client(options, self.rate_limiter))

    def journal(self, position: int) -> bool:
        """Return True if the image at this position is known to kill the decoder.

        Otherwise record the position in the journal and return False.
        """
        if position in self.guilty:
            return True
        if self.journal_file is not None:
            self.journal_file.seek(0)
            self.journal_file.write(f"{self.number} {position:<20}")
            self.journal_file.flush()
        return False
