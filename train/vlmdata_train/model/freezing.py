"""Choose which weights of a model are trained: freeze parts, train them, or add LoRA, and apply rules to some weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from vlmdata.sizes import counted, noun
from vlmdata_train.model.lora import add_lora, closed_gates
from vlmdata_train.model.model_recipe import Part, Rule
from vlmdata_train.model.weight_rules import check_selection, ruled_weights, selected


def apply_parts(parts: Mapping[str, nn.Module], table: Mapping[str, Part]) -> None:
    """Freeze each part, train it, or add LoRA to it, as `table` says. A part that is not in `table` is trained.

    Call this function before any block is compiled. A block that is compiled while its weights are frozen gets no gradients
    when it is trained later, and no error shows this. Raises ValueError for a part that cannot have LoRA, and for a rule that
    selects no weight or changes nothing.
    """
    for name, module in parts.items():
        try:
            _apply(module, table.get(name, Part()))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def _apply(module: nn.Module, part: Part) -> None:
    """Freeze a part, train it, or add LoRA to it, and then apply its rules."""
    for number, rule in enumerate(part.rules, 1):
        try:
            check_selection(module, rule.weights)
        except ValueError as error:
            raise ValueError(f"rules, {number}: {error}") from None
    ruled = [one for one in ruled_weights(module, part.rules) if one.frozen is not None]
    module.requires_grad_(not part.frozen and part.lora is None)
    if part.lora is not None:
        add_lora(module, part.lora, apart={one.weight for one in ruled})
    for one in ruled:
        one.weight.requires_grad_(not one.frozen)
    for number, rule in enumerate(part.rules, 1):
        _check_effect(module, rule, f"rules, {number}: '{rule.label}'")


def _check_effect(module: nn.Module, rule: Rule, where: str) -> None:
    """Raise ValueError if a rule sets a value only for frozen weights, or weight decay only for vectors."""
    trained = [one.weight for one in selected(rule.weights, ruled_weights(module, [])) if one.weight.requires_grad]
    if rule.frozen is None and not trained:
        raise ValueError(f"{where} matches only frozen weights, which cannot have `lr` or `weight_decay`. Add `frozen: false`.")
    if rule.weight_decay and all(weight.ndim <= 1 for weight in trained):
        raise ValueError(f"{where} matches only vectors, and weight decay acts on matrices. Remove `weight_decay`.")


def check_gates(parts: Mapping[str, nn.Module], table: Mapping[str, Part]) -> None:
    """Raise ValueError if a part with LoRA or rules has a frozen gate (a weight that scales a layer's output) that is 0.

    The layers behind such a gate would get no gradient. Load the start weights before this check.
    """
    for name, module in parts.items():
        part = table.get(name, Part())
        if (part.lora is None and not part.rules) or not (closed := closed_gates(module)):
            continue
        place, what = (f"{name}: lora", "LoRA does") if part.lora else (f"{name}: rules", "The rules do")
        if any(weight.requires_grad for weight in module.parameters()):
            gates = f"{counted(len(closed), 'gate')} {noun(len(closed), 'is', 'are')} 0"
            raise ValueError(
                f"{place}: {gates}, the first is {closed[0]}. {what} not train gates, so nothing would be"
                " learned. Train the gates with the rule {weights: '*_gate', frozen: false}, train the whole part, or set"
                " `start` to a model in which the part was trained."
            )
