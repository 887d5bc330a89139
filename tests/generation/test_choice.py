"""A wrong value of the parameter `generator` is one line that says what to write and never repeats a key."""

import pytest

from vlmdata.errors import RecipeError
from vlmdata.recipe import parse

URL = "http://127.0.0.1:1/v1"
KEY = "sk-SECRET-WORD"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"openai": {"model": "m", "url": URL, "key": KEY}}, "openai: OpenAI has no parameter 'key'. Did you mean 'key_from'?"),
        ({"openai": {"model": "m", "key_from": KEY}}, "openai: OpenAI needs the parameter 'url'"),
        ({"openai": {"model": "m", "url": URL, "key_from": KEY, "retries": "x"}}, "retries = 'x': must be a whole number"),
        ({"openai": {"model": "m", "url": URL, "key_from": KEY}}, "key_from must be the name of an environment variable"),
        ({"openai": {"key_from": KEY}, "hf": {"model": "m"}}, "not a mapping with the names ['openai', 'hf']"),
        ({"openai": [KEY]}, "The value of 'openai' is a list"),
        ({"openai": KEY}, "The value of 'openai' is a str"),
        ({"openapi": {"key": KEY}}, "there is no generator 'openapi'. Did you mean 'openai'?"),
        (["openai"], "not ['openai']. Names: hf, openai"),
        ({"../hf": {"model": "m"}}, "cannot import the generator '../hf': write it as MODULE.CLASS"),
        ({".Own": {}}, "cannot import the generator '.Own': write it as MODULE.CLASS"),
        ({"no_such_module.Own": {"key": KEY}}, "cannot import the generator 'no_such_module.Own': No module named"),
    ],
)
def test_a_mistake_is_one_line_without_the_values_of_parameters(choice, message):
    with pytest.raises(RecipeError) as raised:
        parse({"source": {"type": "files", "path": "."}, "steps": [{"recaption": {"generator": choice}}]}).steps[0].check()
    said = str(raised.value)
    assert message in said and KEY not in said and "\n" not in said
