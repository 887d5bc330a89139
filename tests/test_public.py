"""The public face of vlmdata: functions with the words of the command line, and errors that one base holds together."""

import pickle

import pytest

from vlmdata import errors, run, step
from vlmdata.engine.finish import SumsDiffer
from vlmdata.loader.index import NoIndex
from vlmdata.loader.read import DamagedSample
from vlmdata.recipe import load


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.RecipeError, ValueError),
        (errors.InputError, ValueError),
        (errors.WorkFailed, RuntimeError),
        (NoIndex, ValueError),
        (DamagedSample, ValueError),
        (SumsDiffer, AssertionError),
    ],
)
def test_every_error_is_one_of_ours_and_of_python_says_no_secret_and_travels_between_processes(kind, builtin):
    error = pickle.loads(pickle.dumps(kind("no tars at s3://KEY:SECRET@bucket/set")))
    assert type(error) is kind and isinstance(error, errors.Error) and isinstance(error, builtin)
    assert "SECRET@" not in str(error) and "bucket/set" in str(error)


def test_steps_of_users_find_recipe_error_where_it_was():
    assert step.RecipeError is errors.RecipeError


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"overrides": "source.path=a"}, "overrides is a mapping such as {'source.path': 'urls.parquet'}, not 'source.path=a'"),
        ({"recipe": 5}, "recipe is a file, the name of a recipe that ships, or a Recipe, not 5"),
        ({"out": ""}, "out is a path or an address, not ''"),
        ({"workers": 0}, "workers is a whole number, 1 or more, not 0"),
        ({"workers": True}, "workers is a whole number, 1 or more, not True"),
        ({"limit": 1.5}, "limit is a whole number, 0 or more, not 1.5"),
        ({"local": "yes"}, "local is True or False, not 'yes'"),
        ({"retry": [503]}, "retry is a text or a list of texts, not [503]"),
        ({"address": 6379}, "address is a text, not 6379"),
        ({"recipe": "caption"}, "there is no recipe 'caption'. Did you mean 'captions'?"),
    ],
)
def test_a_wrong_argument_of_run_is_one_line_before_any_work(tmp_path, given, says):
    with pytest.raises(errors.Error) as caught:
        run(**{"recipe": "captions", "out": tmp_path / "out", "local": True, **given})
    assert str(caught.value) == says and list(tmp_path.iterdir()) == []


def test_overrides_change_a_file_and_no_recipe_that_was_read(tmp_path):
    recipe = load("captions", {"source.path": "urls.parquet"})
    with pytest.raises(errors.RecipeError, match="overrides change a recipe of a file"):
        run(recipe, tmp_path / "out", overrides={"part_rows": 10})
