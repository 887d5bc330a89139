import pyarrow as pa

from tests.rows import captions, document, table
from vlmdata.row import set_column
from vlmdata.steps.dedupe_exact import DedupeExact


def test_the_largest_picture_then_the_smallest_key_is_kept_of_equal_bytes() -> None:
    rows = captions(
        list("abcde"), sha256=["x", "x", "y", "x", None], original_width=[10, 20, 5, 20, 1], original_height=[10, 10, 5, 10, 1]
    )
    found = DedupeExact().run(rows)
    keys = rows["key"].to_pylist()
    assert found["drop"].to_pylist() == ["dedupe_exact", None, None, "dedupe_exact", None]
    assert found["reason"].to_pylist() == ["same_sha256", None, None, "same_sha256", None]
    assert found["cluster"].to_pylist() == [keys[1], None, None, keys[1], None]


def test_rows_dropped_before_are_ignored_and_unchanged() -> None:
    rows = captions(["a", "b", "c"], sha256=["x", "x", "x"])
    first = set_column(rows, "drop", pa.array(["resize", None, None], pa.string()))
    found = DedupeExact().run(first)
    assert found["drop"].to_pylist() == ["resize", None, "dedupe_exact"]
    assert found["cluster"].to_pylist() == [None, None, rows["key"][1].as_py()]


def test_captions_of_dropped_rows_become_alternatives_of_the_kept_row() -> None:
    rows = captions(["a cat", "a dog", "A cat!", "a cat"], sha256=["x", "y", "x", "x"])
    found = DedupeExact(merge_captions=True).run(rows)
    texts = found["texts"].to_pylist()
    assert (texts[0][1]["text"], texts[0][1]["alternatives"]) == ("a cat", ["A cat!"])
    assert texts[1][1]["alternatives"] is None
    assert found["drop"].to_pylist() == [None, None, "dedupe_exact", "dedupe_exact"]


def test_equal_rows_are_distinguished_by_their_keys() -> None:
    rows = captions(["a", "a", "b"])
    keys = ["5f", "5f_1", "60"]
    rows = set_column(rows, "key", pa.array(keys, pa.string()))
    found = DedupeExact(by="row").run(rows)
    assert found["drop"].to_pylist() == [None, "dedupe_exact", None]
    assert found["cluster"].to_pylist() == [None, "5f", None]


def test_a_document_loses_an_image_and_is_kept_while_it_has_others() -> None:
    rows = table(
        [
            document({"url": "u1"}, "text", {"url": "u2"}, {"url": "u1"}),
            document({"url": "u2"}, "more"),
            document({"url": None}, {"url": "u3"}),
        ]
    )
    found = DedupeExact(by="url").run(rows)
    drops = [[image and image["drop"] for image in images] for images in found["images"].to_pylist()]
    assert drops == [[None, None, None, "dedupe_exact"], ["dedupe_exact", None], [None, None]]
    assert found["drop"].to_pylist() == [None, "dedupe_exact", None]
    assert found["cluster"].to_pylist()[1] == rows["key"][0].as_py()
