"""A lack of memory while a published model is read is not called damage of its files."""

import pytest

from vlmdata_train.model.reading import Damaged, read_published


def fails_with(error):
    def load(name, **options):
        raise error

    return load


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("std::bad_alloc"), OSError("no such model")])
def test_an_error_of_the_machine_is_not_called_damage(tmp_path, error):
    with pytest.raises(type(error)) as caught:
        read_published(fails_with(error), str(tmp_path))
    assert caught.value is error


def test_any_other_error_of_a_reader_is_damage(tmp_path):
    with pytest.raises(Damaged, match=r"^KeyError: 'model_type'$"):
        read_published(fails_with(KeyError("model_type")), str(tmp_path))
