"""Load the weights of a published model into our model, one file at a time."""

from __future__ import annotations

import torch
from torch import Tensor

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
    missing, divided = dict(weights), DividedWeights()
    name_in_memory = start.name_in_memory()
    for theirs, tensor in start.weights():
        in_memory = name_in_memory(theirs)
        ours = family.our_name(in_memory, start.config)
        if ours in shared or (ours not in weights and theirs.endswith(OLD_BUFFERS)):
            continue
        if ours not in weights:
            raise ValueError(f"{name}: the model has no place for the weight '{theirs}'. Omit `model` in the recipe")
        weight = weights[ours]
        count = weight.shape[0] if weight.ndim else 0
        tensor, rows = family.our_tensor(ours, tensor, count), family.our_rows(in_memory, start.config, count)
        needed = weight.shape if len(rows) == count else (len(rows), *weight.shape[1:])
        if needed != tensor.shape:
            raise ValueError(
                f"{name}: {ours.partition('.')[0]}: the weight '{theirs}' has the shape {tuple(tensor.shape)}, but the model"
                f" needs {tuple(needed)}. Omit `model` in the recipe"
            )
        whole = divided.add(ours, rows, tensor, count) if len(rows) < count else tensor
        if whole is not None:
            weight.copy_(distribute_like(whole, weight))
            missing.pop(ours, None)
    if missing:
        first = next(iter(missing))
        raise ValueError(
            f"{name}: {first.partition('.')[0]}: the files lack the weight '{first}' (missing weights: {len(missing)})"
        )


class DividedWeights:
    """Joins weights that transformers divides by rows. The parts of a weight may be in different files."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[int, Tensor]] = {}  # of weights that are not complete, by the number of the first row

    def add(self, name: str, rows: range, tensor: Tensor, count: int) -> Tensor | None:
        """Add some rows of the weight `name`. Return the weight once all its `count` rows are there, otherwise None."""
        parts = self._parts.setdefault(name, {})
        parts[rows.start] = tensor
        if sum(map(len, parts.values())) < count:
            return None
        return torch.cat([part for _, part in sorted(self._parts.pop(name).items())])
