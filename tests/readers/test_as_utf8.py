"""Any bytes map to valid UTF-8 and back to the same bytes."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.readers import as_utf8
from vlmdata.readers.as_utf8 import AsUtf8, original_bytes

PIECES = [b"\n", b"\xff", "é".encode(), "é".encode()[:1], "\U0010ff80".encode(), "\U0010ffff".encode(), b"\xf4\x8f", b"\xf4"]


@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=4)).map(b"".join), st.integers(1, 9))
def test_bytes_survive_the_conversion_and_back_for_any_read_size(data: bytes, size: int) -> None:
    stream = AsUtf8(io.BytesIO(data))
    parts = list(iter(lambda: stream.read(size), b""))
    assert all(len(part) <= size for part in parts)
    text = b"".join(parts)
    text.decode()
    assert original_bytes(text) == data
    assert stream.is_marked or text == data


def test_an_endless_line_is_returned_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_utf8, "MOST", 100)
    source = io.BytesIO(b"\xe9" * 1000)
    stream = AsUtf8(source)
    first = stream.read(40)
    assert len(first) == 40 and source.tell() < 200
    assert original_bytes(first + stream.read(400)) == b"\xe9" * 110
