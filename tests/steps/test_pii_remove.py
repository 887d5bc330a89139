import pytest

from tests.rows import captions, table
from vlmdata.steps.pii_remove import PiiRemove


@pytest.mark.parametrize(
    ("text", "left", "count"),
    [
        ("Flat for rent, call 212-555-0187 or write a@b.org today.", "Flat for rent, or write today.", 2),
        ("Contact (jane@example.org).", "Contact.", 1),
        ("nothing here  at all", "nothing here  at all", 0),
        ("a@b.org", "", 1),
    ],
)
def test_what_is_found_goes_and_the_rest_closes_up(text, left, count):
    rows = PiiRemove().run(captions([text]))
    assert rows["texts"].to_pylist()[0][1]["text"] == left
    assert rows["pii_remove.removed"].to_pylist() == [[None, count]]
    assert rows["drop"].to_pylist() == [None]


def test_a_mark_and_alternatives():
    text = {"text": "ip 10.0.0.1 here", "alternatives": ["mail a@b.org", "a@b.org", "a dog"]}
    rows = PiiRemove(mark="<pii>", kinds=["mail", "ip"]).run(table([{"images": [None], "texts": [text]}]))
    assert rows["texts"].to_pylist()[0][0]["text"] == "ip <pii> here"
    assert rows["texts"].to_pylist()[0][0]["alternatives"] == ["mail <pii>", "<pii>", "a dog"]
    assert rows["pii_remove.removed"].to_pylist() == [[3]]
