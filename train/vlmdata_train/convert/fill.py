"""Load the weights of a published model into our model, one file at a time."""

from __future__ import annotations

import torch

from vlmdata_train.convert.checkpoint import unshared
from vlmdata_train.convert.family import family_of
from vlmdata_train.convert.published import Published
from vlmdata_train.distributed import distribute_like
from vlmdata_train.model.head import Head
from vlmdata_train.model.model import VisionLanguageModel

# ends of the names of buffers that older versions of transformers saved; newer ones compute them
OLD_BUFFERS = (".rotary_emb.inv_freq", ".position_ids")


@torch.no_grad()
def fill_from_published(model: VisionLanguageModel, name: str) -> None:
    """Copy the weights of the published model `name` into `model`.

    Each tensor is read once and copied to this rank's share. Raises ValueError, which names the part, for a weight that does
    not fit, and if a weight is missing.
    """
    start = Published(name)
    family = family_of(start)
    if model.head != Head() or model.lm_head.bias is not None:
        kind = type(model.language).__name__
        raise ValueError(f"{name}: {family.title}'s format has no bias, scale or cap for logits, but {kind} uses one of them")
    weights = dict(unshared(model))
    shared = set(model.state_dict()) - set(weights)  # second names of tied weights
    missing = {name: weights[name] for name in family.our_weights(model) if name in weights}
    for theirs, ours, tensor in family.read(start):
        if ours in shared or (ours not in weights and theirs.endswith(OLD_BUFFERS)):
            continue
        if ours not in weights:
            raise ValueError(f"{name}: the model has no place for the weight '{theirs}'. Omit `model` in the recipe")
        weight = weights[ours]
        tensor = family.our_tensor(ours, tensor, weight.shape[0] if weight.ndim else 0)
        if weight.shape != tensor.shape:
            raise ValueError(
                f"{name}: {ours.partition('.')[0]}: the weight '{theirs}' has the shape {tuple(tensor.shape)}, but the model"
                f" needs {tuple(weight.shape)}. Omit `model` in the recipe"
            )
        weight.copy_(distribute_like(tensor, weight))
        missing.pop(ours, None)
    if missing:
        first = next(iter(missing))
        raise ValueError(
            f"{name}: {first.partition('.')[0]}: the files lack the weight '{first}' (missing weights: {len(missing)})"
        )
