"""Choose which weights of a model are trained: freeze parts, train them, or add LoRA."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from vlmdata_train.model.lora import add_lora, closed_gates
from vlmdata_train.model.model_recipe import Part


def apply_parts(parts: Mapping[str, nn.Module], table: Mapping[str, Part]) -> None:
    """Freeze each part, train it, or add LoRA to it, as `table` says. A part that is not in `table` is trained.

    Call this function before any block is compiled. A block that is compiled while its weights are frozen gets no gradients
    when it is trained later, and no error shows this. Raises ValueError for a part that cannot have LoRA.
    """
    for name, module in parts.items():
        part = table.get(name, Part())
        module.requires_grad_(not part.frozen and part.lora is None)
        if part.lora is not None:
            try:
                add_lora(module, part.lora)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


def check_gates(parts: Mapping[str, nn.Module], table: Mapping[str, Part]) -> None:
    """Raise ValueError if a part with LoRA has a gate (a weight that scales a layer's output) that is 0.

    LoRA does not train gates, so the layers behind such a gate would get no gradient. Load the start weights before this check.
    """
    for name, module in parts.items():
        if table.get(name, Part()).lora is not None and (closed := closed_gates(module)):
            raise ValueError(
                f"{name}: lora: {len(closed)} gates are 0, the first is {closed[0]}. LoRA does not train"
                " gates, so nothing would be learned. Train the part without `lora`, or set `start` to a model in which the"
                " part was trained."
            )
