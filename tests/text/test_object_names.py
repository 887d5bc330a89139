"""Names of objects are found with their other words and plurals."""

import pytest

from vlmdata.text.object_names import ObjectNames, plural, tokens_of

NAMES = ObjectNames()


def found(text, names=NAMES):
    return [sorted(one.names) for one in names.mentions(tokens_of(text))]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Two men and a puppy sit on the sofa.", [["person"], ["dog"], ["couch"]]),
        ("A hot dog, a teddy bear and a bear", [["hot dog"], ["teddy bear"], ["bear"]]),
        ("THE TRAFFIC-LIGHTS near the train station", [["traffic light"]]),
        ("a bike", [["bicycle", "motorcycle"]]),
        ("an orange cat with oranges", [["cat"], ["orange"]]),
        ("children, knives, mice and sheep", [["person"], ["knife"], ["mouse"], ["sheep"]]),
        ("the dog’s bowl", [["dog"], ["bowl"]]),
        ("a category of carpets", []),
        ("", []),
        ("\u200b\x00 \ud800", []),
    ],
)
def test_names_are_found_in_a_text(text, names):
    assert found(text) == names


def test_a_word_for_some_of_the_objects_and_a_plural_are_marked():
    one, two, three = NAMES.mentions(tokens_of("dogs, a puppy and a dog"))
    assert [(m.is_whole, m.is_plural) for m in (one, two, three)] == [(True, True), (False, False), (True, False)]


def test_other_names_and_labels_count_beside_those_of_coco():
    names = ObjectNames({"lamp": ["street_lantern"], "dog": ["doggo"]})
    assert found("two street lanterns and a doggo", names) == [["lamp"], ["dog"]]
    assert found("3 red circles and a dog", NAMES.with_labels(["Red circle", "dog"])) == [["red circle"], ["dog"]]


@pytest.mark.parametrize(
    ("label", "names"),
    [("dog", ["dog"]), ("Brown_Dogs", ["dog"]), ("tv", ["tv"]), ("lamp post", ["lamp post"]), ("man", ["person"])],
)
def test_a_label_names_an_object(label, names):
    assert sorted(NAMES.named(label)) == names


@pytest.mark.parametrize(
    ("word", "many"),
    [("wine glass", "wine glasses"), ("fisherman", "fishermen"), ("pony", "ponies"), ("boy", "boys"), ("couch", "couches")],
)
def test_plurals(word, many):
    assert plural(word) == many
