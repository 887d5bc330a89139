"""Paragraphs that a site repeats on many pages are dropped."""

from tests.rows import document, table
from vlmdata.steps.paragraph_repeats import ParagraphRepeats

LINE, EOD = "All rights reserved.", "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"


def pages(*places: tuple[str | None, list[str]]):
    return table([{**document(*texts), "url": url} for url, texts in places])


def lost(rows) -> list:
    return [[text["reason"] is not None for text in row["texts"]] for row in rows.to_pylist()]


def test_three_copies_on_one_host_are_all_dropped_and_two_are_kept():
    rows = pages(
        ("http://A.com/1", ["own", LINE, EOD]),
        ("https://a.com/2", [LINE, LINE, EOD, "twice"]),
        ("http://a.com/3", ["twice", EOD]),
    )
    found = ParagraphRepeats().decide(rows)
    assert lost(found) == [[False, True, False], [True, True, False, False], [False, False]]
    assert found.to_pylist()[0]["texts"][1]["value"] == 3


def test_hosts_are_counted_separately_and_rows_without_address_do_not_count():
    rows = pages(("http://a.com/1", [LINE]), ("http://b.com/1", [LINE]), ("http://a.com/2", [LINE]), (None, [LINE, LINE, LINE]))
    assert lost(ParagraphRepeats().decide(rows)) == [[False], [False], [False], [False] * 3]


def test_a_page_of_repeated_paragraphs_only_is_dropped():
    rows = pages(*((f"http://a.com/{i}", [LINE]) for i in range(3)))
    assert ParagraphRepeats().decide(rows)["drop"].to_pylist() == ["paragraph_repeats"] * 3
