"""A box is its centre, in percent with one decimal."""

from tests.grounding.made import written
from vlmdata.grounding.write import read_text


def test_a_box_becomes_the_point_at_its_centre() -> None:
    point = '<point x="75.0" y="25.0" alt="the dog">the dog</point>'
    assert written("molmo", "refer", [("the dog", [1])]) == point
    found = read_text(f"Here: {point}", "molmo", 9, 9)
    assert found.text == "Here: the dog" and found.found[0].boxes == ((0.75, 0.25, 0.75, 0.25),)


def test_several_points_are_in_the_order_of_x() -> None:
    text = written("molmo", "detect", [("cats", [1, 0])])
    assert text == '<points x1="31.2" y1="50.0" x2="75.0" y2="25.0" alt="cats">cats</points>'
    assert len(read_text(text, "molmo", 9, 9).found[0].boxes) == 2


def test_quotation_marks_do_not_end_the_attribute() -> None:
    text = written("molmo", "refer", [('a "red" <b> dog', [1])])
    assert text == '<point x="75.0" y="25.0" alt="a \'red\' b dog">a "red" b dog</point>'


def test_absent_objects_have_the_published_answer() -> None:
    assert written("molmo", "detect", ["None."]) == "There are none."


def test_points_outside_of_the_picture_and_half_points_are_left_out() -> None:
    assert read_text('<point x="100.1" y="5.0">a</point> <point x="1">b</point>', "molmo", 9, 9).found == ()
