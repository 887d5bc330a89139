"""Images whose address occurs in too many documents are dropped."""

from tests.rows import document, table
from vlmdata.steps.image_url_frequency import ImageUrlFrequency


def test_an_address_over_the_limit_loses_every_copy():
    often, seldom, own = {"url": "http://e/often"}, {"url": "http://e/seldom"}, {"url": "http://e/own"}
    rows = table([*(document("t", often, seldom) for _ in range(2)), document("t", often, own)])
    found = ImageUrlFrequency(max_count=2).decide(rows).to_pylist()
    assert [[i["reason"] for i in row["images"] if i] for row in found] == [["frequent_address", None]] * 3
    assert found[0]["images"][1]["value"] == 3 and found[0]["drop"] is None
    assert [row["drop"] for row in ImageUrlFrequency(max_count=3).decide(rows).to_pylist()] == [None] * 3


def test_inline_images_and_dropped_rows_do_not_count():
    inline = {"url": "data:image/png"}
    again = document("t", {"url": "u"})
    rows = table([{**document("t", inline), "drop": None}, document("t", inline), {**again, "drop": "x"}, again])
    assert [row["drop"] for row in ImageUrlFrequency(max_count=1).decide(rows).to_pylist()] == [None, None, "x", None]
