"""Which weights of a model are trained: parts are frozen, left open, or given LoRA."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from vlmdata_train.model.lora import add_lora, closed_gates
from vlmdata_train.model.model_recipe import Part


def apply_parts(parts: Mapping[str, nn.Module], table: Mapping[str, Part]) -> None:
    """Freeze, leave open, or give LoRA to each part. A part that the table does not name is trained.

    It must come before any block is compiled: a block compiled while frozen stays without gradients, silently.
    ValueError names a part that has no place for LoRA.
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
    """Raise ValueError for a part with LoRA that no gradient would reach. The weights to start with must be in place."""
    for name, module in parts.items():
        if table.get(name, Part()).lora is not None and (closed := closed_gates(module)):
            raise ValueError(
                f"{name}: lora: gates are closed ({len(closed)}, first {closed[0]}) and would stay so, for LoRA leaves them as"
                " they are: nothing would be learned. Train the part without `lora`, or `start` from a model where it was"
            )
