"""The journal of answers: damaged lines are ignored, and a good answer comes before a failure."""

import json
import os

import pytest

from vlmdata.engine.partitions.answer_journal import AnswerJournal, erase
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.generator import Answer

FINE = Answer("a red cube", "stop", None, 12, 3, 0.5)
LATE = Answer(failure="timeout", seconds=9.0)
FIELDS = {"text": None, "finish": None, "failure": None, "prompt_tokens": 0, "tokens": 0, "seconds": 0.0}
DAMAGED = {
    "a list": b"[1]",
    "a text": b'"id"',
    "no answer": b'{"id": "b", "key": "k"}',
    "no key": b'{"id": "b", "answer": {}}',
    "an id of another type": b'{"id": [1], "key": "k", "answer": {}}',
    "an answer of another type": b'{"id": "b", "key": "k", "answer": [1]}',
    "an unknown field": b'{"id": "b", "key": "k", "answer": {"mood": "good"}}',
    "a number as text": json.dumps({"id": "b", "key": "k", "answer": {**FIELDS, "text": 5}}).encode(),
    "too many tokens": json.dumps({"id": "b", "key": "k", "answer": {**FIELDS, "tokens": 2**31}}).encode(),
    "deep brackets": b"[" * 100_000,
    "half a line": b'{"id": "b", "key": "k", "ans',
    "random bytes": b"\xff\x00\xfe" * 50,
}


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path)


def write(store, question, answer, key="key"):
    """Write an answer as an attempt of its own, and return its file."""
    before = set(store.list("work/answers/say/000000"))
    journal = AnswerJournal(store, "say", 0)
    journal.add(question, key, answer)
    journal.close()
    (new,) = set(store.list("work/answers/say/000000")) - before
    return store.path(new)


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_is_ignored_and_the_lines_around_it_are_known(store, line):
    first = write(store, "a", FINE)
    first.write_bytes(first.read_bytes() + line + b"\n" + first.read_bytes().replace(b'"a"', b'"c"'))
    assert AnswerJournal(store, "say", 0).known == {"a": FINE, "c": FINE}
    erase(store, [0], ["other"], 5)
    assert first.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("names", [("1.jsonl", "2.jsonl"), ("2.jsonl", "1.jsonl")])
def test_a_good_answer_of_any_attempt_comes_before_a_failure(store, names):
    for answer, name in zip((LATE, FINE), names, strict=True):
        file = write(store, "a", answer)
        os.rename(file, file.with_name(name))
    assert AnswerJournal(store, "say", 0).known == {"a": FINE}


def test_failures_that_are_asked_for_again_are_not_known(store):
    for question, answer in (("a", FINE), ("b", LATE), ("c", Answer(failure="http_400"))):
        write(store, question, answer)
    assert set(AnswerJournal(store, "say", 0, ("timeout",)).known) == {"a", "c"}


def test_erase_removes_the_lines_of_a_row_and_ignores_folders_of_others(store):
    kept, gone = write(store, "a", FINE, "key-1"), write(store, "b", FINE, "key-2")
    stray = store.path("work/answers/say/backup/1.jsonl")
    stray.parent.mkdir()
    stray.write_bytes(gone.read_bytes())
    erase(store, [0], ["key-2"], 5)
    assert kept.exists() and not gone.exists() and stray.exists()
