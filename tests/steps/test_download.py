"""The download step has the right parameters in a recipe. Its work is tested with the client and with whole runs."""

import pytest

from vlmdata.recipe import parse
from vlmdata.step import RecipeError


def recipe(**download):
    return {"source": {"type": "url_list", "path": "urls.parquet"}, "steps": [{"download": download}]}


def test_the_parameters_are_those_of_the_web_client():
    step = parse(recipe(timeout_s=3, allowed_hosts=["127.0.0.1"])).steps[0]
    assert (step.timeout_s, step.allowed_hosts, step.robots) == (3.0, ("127.0.0.1",), True)


@pytest.mark.parametrize(("name", "value"), [("timeout_s", 0), ("timeout_s", "soon"), ("retries", -1), ("agent", "two words")])
def test_a_wrong_value_is_reported_in_one_line_with_its_place(name, value):
    with pytest.raises(RecipeError, match=r"recipe, step 1: Download") as caught:
        parse(recipe(**{name: value}))
    assert name in str(caught.value) and "\n" not in str(caught.value)
