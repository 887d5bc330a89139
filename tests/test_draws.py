"""Random choices are the same for the same seed and key, and are spread as they should be."""

from collections import Counter

import pytest

from vlmdata.draws import Draws

MANY = [Draws(0, f"{n:024x}") for n in range(3000)]


def test_a_choice_depends_on_seed_key_and_name_and_not_on_the_number_of_identical_rows() -> None:
    one = Draws(1, "abc")
    assert one.number("a") == Draws(1, "abc").number("a") == Draws(1, "abc_2").number("a")
    assert len({one.number("a"), one.number("b"), Draws(2, "abc").number("a"), Draws(1, "abd").number("a")}) == 4


def test_numbers_are_spread_evenly() -> None:
    numbers = [one.number("x") for one in MANY]
    assert all(0 <= number < 1 for number in numbers) and sum(numbers) / 3000 == pytest.approx(0.5, abs=0.02)
    assert all(2 <= one.between("x", 2, 5) <= 5 for one in MANY)
    assert set(Counter(one.one("x", "abc") for one in MANY)) == set("abc")


def test_an_order_holds_every_item_once() -> None:
    orders = Counter(tuple(one.order("o", "abc")) for one in MANY)
    assert len(orders) == 6 and min(orders.values()) > 400


def test_the_first_of_weighted_names_is_drawn_in_proportion_to_its_weight() -> None:
    drawn = [one.by_weight("w", {"a": 3.0, "b": 1.0, "c": 0.0}) for one in MANY]
    assert {tuple(sorted(one)) for one in drawn} == {("a", "b")}
    assert sum(one[0] == "a" for one in drawn) / 3000 == pytest.approx(0.75, abs=0.03)
