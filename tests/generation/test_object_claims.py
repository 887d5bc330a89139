"""Objects and numbers of a turn are compared with captions and boxes."""

import pytest

from vlmdata.generation.object_claims import KnownObjects
from vlmdata.text.object_names import ObjectNames

NAMES = ObjectNames()
CAPTIONS = ["A man with two dogs on a street.", "A bench beside a tree."]
KNOWN = KnownObjects(CAPTIONS, ["person", "dog", "dog", "dog", "car", "car"], NAMES)


@pytest.mark.parametrize(
    ("question", "answer", "absent"),
    [
        ("What is on the street?", "A man walks with dogs past a car and a bench.", []),
        ("What is on the street?", "A cat sits beside the dogs. There are two buses.", ["bus", "cat"]),
        ("What is the cat doing?", "It sleeps.", ["cat"]),
        ("Is there a cat?", "No, there is none.", []),
        ("Is there a cat?", "No, there is no cat, only dogs.", []),
        ("Is there a cat?", "No. A horse is there.", ["horse"]),
        ("Is there a cat?", "Yes, there is.", ["cat"]),
        ("Is it a cat or a dog?", "It is a dog.", []),
        ("What could happen?", "The dogs might chase a cat. A leash is usually better than an umbrella.", []),
        ("What is there?", "A lamp and a tree.", []),
        ("What is there?", "A woman.", []),
    ],
)
def test_stated_objects_need_a_caption_or_a_box(question, answer, absent):
    assert KNOWN.absent(question, answer) == absent


@pytest.mark.parametrize(
    ("question", "answer", "wrong"),
    [
        ("What is there?", "There are three dogs.", None),
        ("What is there?", "There are two dogs.", None),  # a caption says so
        ("What is there?", "There are four dogs.", (4, 3)),
        ("What is there?", "There are 4 small dogs beside a man.", (4, 3)),
        ("What is there?", "There is one car in the picture.", (1, 2)),
        ("What is there?", "There is one car on the left.", None),
        ("What is there?", "A man looks at one car.", None),
        ("What is there?", "There are no cars.", (0, 2)),
        ("What is there?", "There are no cars on the right.", None),
        ("What is there?", "Two people walk by.", (2, 1)),
        ("What is there?", "Two men walk by.", (2, 1)),
        ("What is there?", "There is one man.", None),
        ("How many dogs are there?", "There are three.", None),
        ("How many dogs are in the picture?", "One.", (1, 3)),
        ("How many brown dogs are there?", "One.", None),
        ("How many dogs are near the man?", "One.", None),
        ("How many cars are visible?", "None, as the street is empty.", None),
        ("How many cars are visible?", "There are no cars.", (0, 2)),
        ("What is there?", "There are at least five dogs, or about six dogs.", None),
        ("What is there?", "Five slices of cake, five benches, 5 dog beds and two-seated cars.", None),
        ("What is there?", "Five dogs might come.", None),
        ("Why do the five dogs wait?", "For the man.", (5, 3)),
        ("Are there five dogs?", "No, there are three.", None),
        ("Are there five dogs?", "Yes.", (5, 3)),
    ],
)
def test_stated_numbers_are_compared_with_the_boxes(question, answer, wrong):
    assert KNOWN.wrong_count(question, answer) == wrong


def test_numbers_are_not_compared_without_boxes_or_with_more_than_ten():
    assert KnownObjects(["a dog"], [], NAMES).wrong_count("", "There are nine dogs.") is None
    assert KnownObjects([], ["dog"] * 10, NAMES).wrong_count("", "There are nine dogs.") == (9, 10)
    assert KnownObjects([], ["dog"] * 11, NAMES).wrong_count("", "There are nine dogs.") is None


def test_labels_that_no_list_has_are_counted():
    labels = ["red circle", "red circle", "blue square"]
    assert KnownObjects([], labels, NAMES).wrong_count("", "There are 3 red circles.") == (3, 2)
    names = ObjectNames({"green circle": [], "red circle": []})
    assert KnownObjects([], labels, names).absent("", "There are 2 red circles and a green circle.") == ["green circle"]
