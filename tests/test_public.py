"""The public face of vlmdata: its errors."""

import pickle

import pytest

from vlmdata import errors, step
from vlmdata.engine.finish import SumsDiffer
from vlmdata.loader.index import NoIndex
from vlmdata.loader.read import DamagedSample


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
