import json

import pytest

from tests.fixtures import fixture
from tests.real_data import real_data
from tests.rows import captions
from vlmdata.steps.alt_junk import AltJunk

JUNK = {
    "file_name": ["photo-of-dog.JPG", "my holiday 2.jpeg", "/wp-content/uploads/a.png"],
    "camera_name": ["IMG_20190101_123456", "DSC00123", "P1010001", "image 12", "Screenshot 2020-01-01"],
    "address": ["https://a.org/x?y=1", "www.example.com", "example.com", "//cdn.a.org/1"],
    "may_contain": ["Image may contain: 2 people, outdoor", "May be an image of text", "No photo description available."],
    "placeholder": ["image", "Click to enlarge", "Logo", "Photo 3 of 12", "untitled", "No image available", "Stock photo"],
    "no_letters": ["12345", "...", "", "★★★"],
    "code": ["<img src=x> dog", "{{ title }}", "a ${name}"],
}


@pytest.mark.parametrize("rule", list(JUNK))
def test_each_rule_drops_its_examples(rule):
    rows = AltJunk(rules=[rule]).run(captions(JUNK[rule]))
    assert rows["reason"].to_pylist() == [rule] * len(JUNK[rule])


@pytest.mark.parametrize(
    "text",
    [
        "a dog runs (see www.example.com)",
        "image of a dog",
        "logo of the Olympic games",
        "the file photo.jpg on a screen",
        "P 51 Mustang in flight",
        "DSC students in 2019",
        "may contain nuts, says the label on the box",
        "St. Mark's, Venice",
        "图片里有一只狗",
        "A < B and C > D",
    ],
)
def test_meaningful_captions_are_kept(text):
    assert AltJunk().run(captions([text]))["reason"].to_pylist() == [None]


@pytest.mark.timeout(120)  # takes a second; with patterns that search to the end of the text it takes an hour
@pytest.mark.parametrize("piece", ["<a ", "{{", "${", "&a;", "image ", "a.", "may be a "])
def test_a_text_of_a_million_brackets_is_searched_in_linear_time(piece):
    AltJunk().run(captions([piece * 300_000 + "é!"]))


def test_only_the_chosen_rules_are_applied():
    assert AltJunk(rules=["address"]).run(captions(["IMG_1234", "www.a.com"]))["reason"].to_pylist() == [None, "address"]


@pytest.mark.parametrize(
    ("find", "captions_of_the_web", "guessed"),
    [(fixture, "G_text/captions.tsv", 8), (real_data, "G_text/m2ib_cc3m_val/Validation_GCC-1.1.0-Validation.tsv", 176)],
)
def test_only_machine_guesses_among_real_captions_are_dropped(find, captions_of_the_web, guessed):
    path = find("A_captioned/coco_free_licence/manifest.jsonl")
    texts = [text for line in path.read_text().splitlines() for text in json.loads(line)["captions"]]
    assert AltJunk().run(captions(texts))["drop"].null_count == len(texts)
    texts = [line.split("\t")[0] for line in find(captions_of_the_web).read_text().splitlines()]
    reasons = AltJunk().run(captions(texts))["reason"].to_pylist()
    guesses = ["may_contain" if text.startswith("image may contain") else None for text in texts]
    assert reasons == guesses and guesses.count("may_contain") == guessed
