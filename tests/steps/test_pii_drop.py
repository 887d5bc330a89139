import pytest

from tests.rows import captions, table
from vlmdata.steps.pii_drop import PiiDrop

FOUND = {
    "mail": ["write to jane.doe+x@mail.example.co.uk now", "jane (at) example (dot) org", "mailto:a@b.de"],
    "ip": ["server 192.168.0.1 is down", "at 2001:db8::8a2e:370:7334", "::ffff:10.0.0.1 it is"],
    "telephone": [
        "call 555-1234 now",
        "Tel.: 030 123 456 78",
        "+49 (0)30 1234567",
        "(555) 123-4567",
        "212-555-0187 for rent",
        "0044 20 7946 0958",
    ],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_personal_data_drop_a_row(kind, text):
    assert PiiDrop().run(captions([text]))["reason"].to_pylist() == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "the @ sign and 12 @ 3 dollars",
        "version 1.2.3.4.5 and 999.1.1.1",
        "from 10:30:45 to 11:00",
        "1914-1918 and 2019-06-12 and 12/31/2020",
        "ISBN 978-3-16-148410-0",
        "population 1,234,567 and $2,000,000",
        "in 2018 2019 2020",
        "C::D in code, and a::b",
        "a 1920 1080 screen",
        "(1939) 1945-1950",
        "call me maybe",
        "49.2827 -123.1207",
    ],
)
def test_other_numbers_do_not_drop_a_row(text):
    assert PiiDrop().run(captions([text]))["reason"].to_pylist() == [None]


def test_only_the_chosen_kinds_count_also_in_alternatives():
    text = {"text": "a dog", "alternatives": ["mail a@b.org"]}
    rows = table([{"images": [{"url": "u"}, None], "texts": [None, text]}])
    assert PiiDrop().run(rows)["reason"].to_pylist() == ["mail"]
    assert PiiDrop(kinds=["ip", "telephone"]).run(rows)["reason"].to_pylist() == [None]
