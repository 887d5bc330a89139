import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmdata.readers.open_file import Damage
from vlmdata.readers.plain_pickle import read_plain

VALUES = [
    None,
    [True, False, 0, 255, 70_000, -5, 1 << 40, 1 << 90, -(1 << 90), 0.5, float("inf")],
    ["", "a", "né\n'\"\\", "x" * 300, "\u4e2d" * 90_000, b"bytes".decode()],
    [(), (1,), (1, 2), (1, 2, 3), tuple(range(9)), {}, {"a": [1], 2: {"b": None}}, [[], [[]]]],
    {"set": {1, 2}},
]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_of_every_protocol_are_read(protocol: int) -> None:
    for value in VALUES:
        if protocol >= 4 or value != {"set": {1, 2}}:  # before protocol 4, a set is a call
            assert read_plain(pickle.dumps(value, protocol)) == value


def test_values_that_occur_twice_are_one_value() -> None:
    shared = ["a"]
    for protocol in range(6):
        first, second, own = read_plain(pickle.dumps([shared, shared, "a"], protocol))
        assert first is second and own == "a"


def test_byte_strings_of_python_2_become_texts() -> None:
    data = b"(lp0\nS'caf\\xc3\\xa9'\np1\naS'\\xe9'\naS\"it's\"\naI01\naL5L\naVa\\u00e9\na(dp2\nS'k'\nI1\nsa."
    assert read_plain(data) == ["café", "é", "it's", True, 5, "aé", {"k": 1}]
    assert read_plain(b"\x80\x02](U\x03a\xc3\xa9T\x01\x00\x00\x00\xe9e.") == ["aé", "é"]


class Runs:
    """An object whose pickle makes a file when it is read with Python's unpickler."""

    def __init__(self, call: Callable[..., Any], argument: str) -> None:
        self.call, self.argument = call, argument

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return self.call, (self.argument,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(protocol: int, tmp_path: Path) -> None:
    made = tmp_path / "made"
    data = pickle.dumps([{"a": Runs(os.mkdir, str(made))}], protocol)
    with pytest.raises(Damage, match="nothing is run"):
        read_plain(data)
    assert not made.exists()
    pickle.loads(data)  # the trap works
    assert made.exists()


INST = b"(S'/tmp/x'\nios\nmkdir\n."
OBJ = b"(cos\nmkdir\nS'/tmp/x'\no."
PERSISTENT = [b"Pid\n.", b"K\x01Q."]
EXTENSION = [b"\x82\x01.", b"\x83\x01\x00.", b"\x84\x01\x00\x00\x00."]


@pytest.mark.parametrize(
    "data", [INST, OBJ, *PERSISTENT, *EXTENSION, pickle.dumps(np.int64(3)), pickle.dumps(bytearray(b"x"), 5)]
)
def test_every_other_operation_is_refused_with_its_place(data: bytes) -> None:
    with pytest.raises(Damage, match=r"at byte \d+"):
        read_plain(data)


HOSTILE = {
    "empty": b"",
    "no pickle": b"x",
    "JSON": b'{"a": 1}',
    "nothing on the stack": b"\x80\x04.",
    "no end": b"(l",
    "a mark at the end": b"(.",
    "a value on a mark": b"]((a.",
    "add to no list": b"K\x01K\x02a.",
    "items without a value": b"}(K\x01u.",
    "a list as key": b"}]Ns.",
    "a nested tuple as key": b"}(" + b"\x85" * 0 + b")" + b"\x85" * 100_000 + b"Nu.",
    "an unknown memo": b"h\x05.",
    "a text after the quotes": b"S'a'+b'x'\n.",
    "a text that is not closed": b"S'a\n.",
    "a number of many digits": b"I" + b"9" * 5000 + b"\n.",
    "a length beyond the file": b"\x8e" + b"\xff" * 7 + b"\x7fa.",
    "text that is not UTF-8": b"X\x01\x00\x00\x00\xff.",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_damaged_pickle_is_damage(data: bytes) -> None:
    with pytest.raises(Damage, match="pickle"):
        read_plain(data)


def test_a_large_memo_index_takes_no_memory() -> None:
    assert read_plain(b"]r\xff\xff\xff\x7fj\xff\xff\xff\x7fa.")[0] is not None
    assert read_plain(b"]p99999999999999999\n.") == []


def test_a_deep_value_is_read_without_recursion() -> None:
    value = read_plain(b"]" * 200_000 + b"a" * 199_999 + b".")
    depth = 1
    while value:
        value, depth = value[0], depth + 1
    assert depth == 200_000


def test_too_many_operations_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmdata.readers.plain_pickle.MOST_OPERATIONS", 1000)
    with pytest.raises(Damage, match="more than 1,000 operations"):
        read_plain(b"]" * 2000 + b".")


def test_every_prefix_of_a_pickle_is_damage() -> None:
    for protocol in (0, 2, 4):
        data = pickle.dumps(VALUES[1:4], protocol)
        for end in [*range(200), *range(200, len(data) - 1, 9973)]:
            with pytest.raises(Damage):
                read_plain(data[:end])
