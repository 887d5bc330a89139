import json

import pytest

from tests.generation.judged import made
from tests.rows import captions, document, table
from vlmdata.errors import RecipeError
from vlmdata.steps.pii_remove import PiiRemove
from vlmdata.steps.preference_pairs import PreferencePairs


@pytest.mark.parametrize(
    ("text", "left", "count"),
    [
        ("Flat for rent, call 212-555-0187 or write a@b.org today.", "Flat for rent, or write today.", 2),
        ("Contact (jane@example.org).", "Contact.", 1),
        ("nothing here  at all", "nothing here  at all", 0),
        ("a@b.org", "", 1),
    ],
)
def test_personal_data_are_removed_without_leaving_a_gap(text, left, count):
    rows = PiiRemove().run(captions([text]))
    assert rows["texts"].to_pylist()[0][1]["text"] == left
    assert rows["pii_remove.removed"].to_pylist() == [[None, count]]
    assert rows["drop"].to_pylist() == [None]


def test_a_mark_may_replace_personal_data_also_in_alternatives():
    text = {"text": "ip 10.0.0.1 here", "alternatives": ["mail a@b.org", "a@b.org", "a dog"]}
    rows = PiiRemove(mark="<pii>", kinds=["mail", "ip"]).run(table([{"images": [None], "texts": [text]}]))
    assert rows["texts"].to_pylist()[0][0]["text"] == "ip <pii> here"
    assert rows["texts"].to_pylist()[0][0]["alternatives"] == ["mail <pii>", "<pii>", "a dog"]
    assert rows["pii_remove.removed"].to_pylist() == [[3]]


def test_a_tool_call_stays_valid_json_and_its_arguments_are_cleaned():
    given = {"to": ["jane@example.org"], "text": 'Say "[]" ', "days": 2, "note": {}}
    call = {"name": "mail", "arguments": given, "id": "call_1"}
    row = {**document("Write to jane@example.org", json.dumps(call)), "roles": ["user", "assistant"]}
    row["turns"] = [None, json.dumps({"kind": "tool_call"})]
    plain = {**document("jane@example.org", '{"name": 1} jane@example.org'), "roles": None, "turns": None}
    done = PiiRemove().run(table([plain, row]))
    first, second = done["texts"].to_pylist()
    assert [text["text"] for text in first] == ["", '{"name": 1}']
    given["to"] = [""]
    assert (second[0]["text"], json.loads(second[1]["text"])) == ("Write to", call)
    assert done["pii_remove.removed"].to_pylist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("copier", [made("instruct"), PreferencePairs()])
def test_only_behind_a_step_that_copies_texts_it_is_refused(copier):
    message = f"^pii_remove does not clean the texts that {copier.name}, .* Put a pii_remove before {copier.name}$"
    with pytest.raises(RecipeError, match=message):
        PiiRemove().check_steps([copier])
    PiiRemove(label="again").check_steps([PiiRemove(), copier])
    PiiRemove().check_steps([made("judge")])
