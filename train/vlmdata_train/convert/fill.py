"""Load the weights of a published model into our model, one file at a time."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vlmdata_train.convert.family import family_of
from vlmdata_train.convert.misfit import misfit
from vlmdata_train.convert.published import Published
from vlmdata_train.distributed import copy_share
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.model.weight_places import Place, first_places

# ends of the names of buffers that older versions of transformers saved; newer ones compute them
OLD_BUFFERS = (".rotary_emb.inv_freq", ".position_ids")


@torch.no_grad()
def fill_from_published(model: VisionLanguageModel, name: str, places: Mapping[str, Place]) -> None:
    """Copy the weights of the published model `name` into `model`.

    Each tensor is read once and copied to this rank's share. `places` are the `weight_places` of the model before LoRA is added
    to it. Raises ValueError, which names the part, for a weight that does not fit, and if a weight is missing.
    """
    start = Published(name)
    family = family_of(start)
    if not family.holds_head(model):
        kind, known = type(model.language).__name__, "bias or scale" if family.caps else "bias, scale or cap"
        raise ValueError(f"{name}: language: {family.title}'s format has no {known} for logits, but {kind} uses one of them")
    first = first_places(places)
    missing = {name: place for name, place in first.items() if not name.startswith(family.unneeded)}
    for unneeded in first.keys() - missing.keys():
        first[unneeded].tensor.zero_()  # it may have no value yet
    for theirs, ours, tensor in family.read(start):
        if ours is None or ours not in places:
            if theirs.endswith(OLD_BUFFERS):
                continue
            raise ValueError(
                f"{name}: the model has no place for the weight '{theirs}'. Omit `model` in the recipe, if it has one."
                f" Otherwise the files have weights that {family.title} does not know"
            )
        if ours not in first:  # the second name of a tied weight
            continue
        weight = first[ours].tensor
        tensor = family.our_tensor(ours, tensor, weight.shape[0] if weight.ndim else 0)
        if found := misfit(tensor, weight):
            remedy = "" if weight.shape == tensor.shape else ". Omit `model` in the recipe"
            raise ValueError(f"{name}: {ours.partition('.')[0]}: the weight '{theirs}' {found}{remedy}")
        copy_share(tensor, weight)
        missing.pop(ours, None)
    if missing:
        lost = next(iter(missing))
        raise ValueError(
            f"{name}: {lost.partition('.')[0]}: the files lack the weight '{lost}' (missing weights: {len(missing)})"
        )
