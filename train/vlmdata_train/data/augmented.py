"""Put the operations of a stored augmentation beside the images of a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmdata.errors import InputError
from vlmdata.images.formats import IMAGE_EXTENSIONS
from vlmdata.loader.stored_augment import operations_of
from vlmdata.step import RecipeError
from vlmdata_train.data.document import AugmentedPicture
from vlmdata_train.data.read_document import facts_of


def with_augmentation(sample: Mapping[str, Any], column: str | None) -> Mapping[str, Any]:
    """Return a sample whose encoded images are AugmentedPictures, or the sample itself if `column` is None.

    `column` is the name of the step `augment` of the dataset. The draw of a view depends on the sample and the epoch. While
    lengths are measured, the images stay as they are, because a view does not change their sizes. If texts of the sample have
    boxes, operations that move pixels are left out, because the numbers of a moved box may be more or fewer tokens than were
    measured. Raises RecipeError if the
    dataset has no such column, and ValueError for JSON that cannot be read.
    """
    if column is None:
        return sample
    facts = facts_of(sample)
    found: dict[str, Any] = {}
    for name, data in sample.items():
        if name.rpartition(".")[2] not in IMAGE_EXTENSIONS or not isinstance(data, bytes | tuple):
            continue
        try:
            operations = operations_of(facts, name, column, sample.get("__seed__", 0))
        except InputError:
            raise RecipeError(
                f"augment: the data has no stored augmentations named '{column}'. Build it with the step augment, or leave out"
                " `augment`"
            ) from None
        if isinstance(data, bytes) and operations:
            found[name] = AugmentedPicture(data, operations)
    return {**sample, **found}
