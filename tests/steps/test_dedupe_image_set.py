"""One document is kept for each set of images."""

from tests.rows import document, table
from vlmdata.steps.dedupe_image_set import DedupeImageSet

A, B, C = ({"url": f"http://e/{name}"} for name in "abc")


def test_order_and_repeats_of_images_do_not_matter_and_the_latest_is_kept():
    rows = table([document("1", A, B), document(B, "2", A, A), document(A, B, C), document("no image"), document("none")])
    found = DedupeImageSet().decide(rows)
    assert found["reason"].to_pylist() == ["same_images", None, None, None, None]
    assert found["cluster"].to_pylist()[0] == rows["key"].to_pylist()[1]


def test_dropped_images_do_not_count_and_inline_ones_are_compared_by_bytes():
    one, two = {"url": "data:image/png", "sha256": "aa"}, {"url": "data:image/png", "sha256": "bb"}
    rows = table([document(A, {**B, "drop": "x"}), document(A), document(one), document(two), document(two, "t")])
    assert DedupeImageSet().decide(rows)["drop"].to_pylist() == ["dedupe_image_set", None, None, "dedupe_image_set", None]
