"""The first images of a blob on an object store are read one by one, then the whole blob is fetched at once."""

from vlmdata.engine.store import blob_cache
from vlmdata.engine.store.blob_cache import BlobCache


def test_the_fourth_read_fetches_the_whole_blob_and_later_reads_use_the_cache(monkeypatch):
    monkeypatch.setattr(blob_cache, "KEEP_BYTES", 15)
    data, asked = {name: bytes(range(n, n + 10)) for n, name in enumerate("ab")}, []

    def whole(name: str) -> bytes:
        asked.append(name)
        return data[name]

    def part(name: str, offset: int, size: int) -> bytes:
        asked.append((name, offset, size))
        return data[name][offset : offset + size]

    blobs = BlobCache(whole, part)
    assert [blobs.read("a", n, 2) for n in range(8)] == [data["a"][n : n + 2] for n in range(8)]
    assert asked == [("a", 0, 2), ("a", 1, 2), ("a", 2, 2), "a"]
    assert [blobs.read("b", n, 1) for n in range(8)] == [data["b"][n : n + 1] for n in range(8)]
    asked.clear()
    assert blobs.read("a", 3, 1) == data["a"][3:4] and asked == ["a"]  # the cache had no room for both blobs
    data["a"] = bytes(10)
    blobs.forget("a")
    assert blobs.read("a", 3, 1) == b"\0"
