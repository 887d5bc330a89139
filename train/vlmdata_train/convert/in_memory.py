"""The weights of a published model as transformers has them in memory, from files with other names and divisions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from vlmdata_train.convert.published import Published
from vlmdata_train.model.quiet import quiet


def weights_in_memory(start: Published) -> Iterator[tuple[str, str, Tensor]]:
    """Yield each weight as transformers loads it: its name in the files, its name in memory, and its tensor.

    Transformers divides some tensors of the files into several weights, and joins others into one weight, which comes with the
    name of its last tensor. Raises ValueError for tensors that cannot be divided or joined so.
    """
    with torch.device("meta"), quiet():
        model = AutoModelForImageTextToText.from_config(start.config)
    known = dict(model.state_dict())
    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    waiting: dict[str, WeightConverter] = {}  # for more tensors of a weight
    for name, tensor in start.weights():
        new, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, known)
        if pattern is None:
            yield name, new, tensor
            continue
        converter = waiting.setdefault(new, copy.deepcopy(by_pattern[pattern]))
        held: Any = tensor  # transformers' own loader gives a future
        converter.add_tensor(new, name, pattern, held)
        if len(converter.collected_tensors) == len(converter.source_patterns):
            try:
                found = waiting.pop(new).convert(new, model=model, config=start.config)
            except RuntimeError as error:
                raise ValueError(f"{start.name}: the shape of the weight '{name}' does not fit: {error}") from None
            for own, value in found.items():
                yield name, own, value[0] if isinstance(value, list) else value
