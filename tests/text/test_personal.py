"""Personal data is found; file names, sizes, counts, dates, versions and identifiers are not."""

import json
from collections.abc import Iterator

import pytest

from tests.fixtures import fixture
from vlmdata.text.personal import find_personal

KINDS = ("mail", "ip", "telephone")
ANNOUNCED = 24  # characters that a match may have besides the label: "call us at", "mailto:"


def outcomes(half: str) -> Iterator[tuple[str, tuple[str, str], str]]:
    """Yield (outcome, label or match, text) for each label and match: found, missed or wrong."""
    for line in map(json.loads, fixture("G_text/personal.jsonl").read_text().splitlines()):
        if line["half"] == half:
            text, left = line["text"], [tuple(label) for label in line["personal"]]
            for one in find_personal(text, KINDS):
                matched = text[one.start : one.end]
                label = next(
                    (x for x in left if x[0] == one.kind and x[1] in matched and len(matched) <= len(x[1]) + ANNOUNCED), None
                )
                if label is None:
                    yield "wrong", (one.kind, matched), text
                else:
                    left.remove(label)
                    yield "found", label, text
            yield from (("missed", label, text) for label in left)


@pytest.mark.parametrize(("half", "labels"), [("tuned on", 64), ("held back", 35), ("added", 53), ("added, held back", 34)])
def test_exactly_the_labels_of_443_strings_are_found(half, labels):
    made = list(outcomes(half))
    assert [one for one in made if one[0] != "found"] == [] and len(made) == labels


def test_many_of_the_strings_are_real():
    lines = [json.loads(line) for line in fixture("G_text/personal.jsonl").read_text().splitlines()]
    assert len(lines) == 443 and sum(line["source"] != "ours" for line in lines) == 116


@pytest.mark.parametrize(
    "text",
    [
        "photo@2x.JPG",
        "icon@2x.png?v=3",
        "Canon@50mm.f1.8",
        "foo@bar",
        "https://medium.com/@jane.doe",
        "iOS 17.4.1.2",
        "rev 212.100.200.3",
        "std::vector and 19:30:00",
        "Mobile 1920x1080",
        "Phone 12 64 128 256GB",
        "mobile 360 640 480 800",
        "call 1.234.567 times",
        "Text 04/07/1976 09:30",
        "Call Number 813.54 1234",
        "mobile 5000000 installs",
        "01 02 03 04 05",
        "978 0 14 044913 6",
        "+51.5074 -0.1278",
        "1990-1991-1992-1993",
        "size 36 37 38 39 40 41 42",
        "IMG_20190101_123456.jpg",
        "doi 10.1109/5.771073",
        "hotel 1234567, hôtel 1234567, хотел 1234567",
        "CEP 01310-100",
        "server version 10.0.19.1",
        "RFC 9110, HTTP, section 5.6.1.2",
        "Mobile 19.99 249.99",
    ],
)
def test_other_numbers_and_names_are_not_found(text):
    assert find_personal(text, KINDS) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("JANE [AT] EXAMPLE [DOT] COM", "mail"),
        ("jane.doe＠example.org", "mail"),
        ("δοκιμή@παράδειγμα.ελ", "mail"),
        ("192.0.2.44/path", "ip"),
        ("10.0.0.5:3000", "ip"),
        ("+442079460018", "telephone"),
        ("+86 138 0013 8000", "telephone"),
        ("+7 912 345-67-89", "telephone"),
        ("138-0013-8000", "telephone"),
        ("(11) 91234-5678", "telephone"),
        ("030/1234567", "telephone"),
        ("044 123 45 67", "telephone"),
        ("01 23 45 67 89", "telephone"),
        ("手机13800138000", "telephone"),
        ("電話：０３－１２３４－５６７８", "telephone"),
        ("+۹۸ ۲۱ ۵۵۵۵ ۰۱۲۳", "telephone"),
    ],
)
def test_forms_of_all_countries_and_scripts_are_found_whole(text, kind):
    (one,) = find_personal(text, KINDS)
    assert (one.kind, text[one.start : one.end]) == (kind, text.removesuffix("/path").removesuffix(":3000"))


@pytest.mark.parametrize(
    "piece",
    [
        "1",
        "手机",
        "tel no ",
        "a\u200b",
        "فون ",
        "{at}",
        "10.1000/",
        "1 ",
        "(1",
        "+1 ",
        "a@",
        "a.",
        "1.1.1.1 ",
        "1:",
        "call 1 ",
        "tel ",
        "a (at) ",
        "中",
        "a'",
    ],
)
def test_time_is_linear_in_the_length_of_a_text(piece):
    """Quadratic time would make this test take minutes."""
    find_personal(piece * (100_000 // len(piece)) + "@1234567", KINDS)
