"""One document is kept for each page address."""

import json

from tests.rows import document, table
from vlmdata.steps.dedupe_page_url import DedupePageUrl


def page(url: str | None, file: str | None, date: str = "", **fields) -> dict:
    extra = json.dumps({"warc_filename": file, "warc_date": date})
    return {**document("t"), "url": url, "extra": extra, "drop": None, **fields}


def test_the_latest_row_of_each_address_is_kept_and_the_others_point_to_it():
    rows = table(
        [
            page("http://a/", "CC-2020.warc"),
            page("http://a/", "CC-2021.warc", "2021-01-02"),
            page("http://a/", "CC-2021.warc", "2021-01-01"),
            page("http://b/", "CC-2020.warc"),
            page("http://b/", "CC-2021.warc", drop="empty"),
            page(None, None),
            page(None, None),
        ]
    )
    found = DedupePageUrl().decide(rows)
    reasons = [None, "same_page_address"]
    assert found["reason"].to_pylist() == [reasons[i] for i in (1, 0, 1, 0, 0, 0, 0)]
    keys = rows["key"].to_pylist()
    assert found["cluster"].to_pylist() == [keys[1], None, keys[1], None, None, None, None]


def test_the_order_of_rows_does_not_matter():
    rows = table([page("http://a/", "x", str(i % 3)) for i in range(9)])
    kept = {r["key"] for r in DedupePageUrl().decide(rows).to_pylist() if r["drop"] is None}
    turned = {r["key"] for r in DedupePageUrl().decide(rows.take(list(range(8, -1, -1)))).to_pylist() if r["drop"] is None}
    assert kept == turned == {f"{8:024x}"}
