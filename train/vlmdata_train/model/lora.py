"""LoRA (Hu et al. 2021) with peft: add low-rank updates to the linear layers of a part of the model, and merge
them at the end.

The model keeps its class and the names of its weights, so that packing, hooks and saving still work.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from vlmdata_train.model.model_recipe import Lora, patterns_of
from vlmdata_train.model.weight_rules import matches, plain_name, suggestion

# These modules pass the weights of their linear layers to a kernel. They do not call the layers, so an update would not run.
UNCALLED_IN = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
ADAPTER = "default"  # peft's name of the updates
HOOKS = (
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_backward_pre_hooks", "_backward_hooks",
)  # fmt: skip


def add_lora(module: nn.Module, lora: Lora, apart: Collection[nn.Parameter] = ()) -> int:
    """Add a low-rank update to those of a part's `linear_layers` that `lora.layers` selects, and freeze all other weights.

    Returns the number of updates. A layer whose weight is in `apart` gets no update. Hooks of these layers move to the modules
    that replace the layers. Raises ValueError if the part has no such layer.
    """
    from peft import LoraConfig, inject_adapter_in_model  # the extra vlmdata[train]

    layers = _chosen(module, lora, {id(weight) for weight in apart})
    if not layers:
        raise ValueError(f"lora: {type(module).__name__} has no linear layer to update. Train the part without `lora`.")
    targets = "|".join(map(re.escape, layers))  # a pattern of whole names: in a list, `1` would match `block.1` too
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    inject_adapter_in_model(config, module)  # in place; freezes all weights except the updates
    updated: dict[nn.Module, nn.Module] = {}
    for name, layer in layers.items():
        owner, leaf = _place(module, name)
        if layer not in updated:
            updated[layer] = owner.get_submodule(leaf)
            _swap_hooks(layer, updated[layer])
            if layer.weight.is_meta:
                _draw(updated[layer])
        setattr(owner, leaf, updated[layer])  # peft does not replace a shared layer at its second place
    return len(updated)


def _chosen(module: nn.Module, lora: Lora, apart: set[int]) -> dict[str, nn.Linear]:
    """Return the linear layers that get an update, by name.

    `apart` holds the ids of weights whose layers get none. Raises ValueError for a pattern of `lora.layers` without a layer.
    """
    layers = linear_layers(module)
    names = {name: plain_name(module, name) for name in layers}
    patterns = patterns_of("*" if lora.layers is None else lora.layers)
    for pattern in patterns if layers else ():
        if not any(matches(pattern, name) for name in names.values()):
            raise ValueError(f"lora, layers: no linear layer matches '{pattern}'.{suggestion(pattern, [*names.values()], [])}")
    chosen = {layer for name, layer in layers.items() if any(matches(pattern, names[name]) for pattern in patterns)}
    return {name: layer for name, layer in layers.items() if layer in chosen and id(layer.weight) not in apart}


def linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers of a part to which LoRA can add an update, by name.

    The result does not include the head of a language model or the layers that the tower's chosen features do not use. It also
    omits layers whose weight is used without a call of the layer, as in torch's attention and in open_clip's towers. Raises
    ValueError if the part is itself a single linear layer.
    """
    head = module.get_output_embeddings() if isinstance(module, PreTrainedModel) else None
    found = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        if not isinstance(layer, nn.Linear) or layer is head or not name or isinstance(_place(module, name)[0], UNCALLED_IN):
            continue
        is_reached = "weight" in dict(layer.named_parameters(recurse=False))  # unused weights are buffers (unused_weights.py)
        if is_reached and getattr(layer, "is_called", True):  # unused_weights.py sets `is_called` in towers
            found[name] = layer
    # An updated layer replaces the layer in its owner. `VisionLanguageModel.parts` does not return the owner of these layers.
    if isinstance(module, nn.Linear) or (type(module) is nn.ModuleList and any(name.isdecimal() for name in found)):
        raise ValueError(
            "lora: the part is a single linear layer, to which LoRA cannot be added. Train the part without `lora`."
        )
    return found


def closed_gates(module: nn.Module) -> list[str]:
    """Return the names of a part's frozen gates that are closed.

    A gate is a number or a vector, and is closed if it is 0 everywhere.
    """
    frozen = [(name, p) for name, p in module.named_parameters() if not p.requires_grad]
    gates = {name: p.full_tensor() if isinstance(p, DTensor) else p for name, p in frozen if _is_gate(name, p)}
    return [name for name, gate in gates.items() if not gate.any()]


def _is_gate(name: str, weight: nn.Parameter) -> bool:
    return name.endswith("_gate") and weight.ndim <= 1


def merge_lora(module: nn.Module) -> int:
    """Merge every update into its layer's weight, remove the updates, and return their number.

    The outputs stay the same up to rounding. The module has the same names and hooks as before LoRA.
    """
    updates = remove_lora(module)
    for layer in updates.values():
        layer.merge(safe_merge=True)  # raises an error for updates that are not finite
    return len(updates)


def remove_lora(module: nn.Module) -> dict[nn.Module, Any]:
    """Remove every update without adding it to its layer's weight, and return the updates by their layers.

    The module has the same names and hooks as before LoRA.
    """
    if not any("lora_" in name for name, _ in module.named_parameters()):
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer  # the extra vlmdata[train]

    modules = list(module.named_modules(remove_duplicate=False))
    updated: set[Any] = {layer for _, layer in modules if isinstance(layer, BaseTunerLayer)}
    for layer in updated:
        _swap_hooks(layer, layer.get_base_layer())
    for name, layer in modules:
        if layer in updated:
            setattr(*_place(module, name), layer.get_base_layer())
    for part in module.modules():
        vars(part).pop("peft_config", None)  # peft's record of its updates; if it stays, peft warns at the next LoRA
    return {layer.get_base_layer(): layer for layer in updated}


def merged(update: Any, weight: Tensor) -> Tensor:
    """Return the weight of a layer with its update added, as `merge_lora` computes it.

    Raises ValueError if the result is not finite.
    """
    total: Tensor = update.get_delta_weight(ADAPTER)
    total += weight.to(total.dtype)
    if not total.isfinite().all():
        raise ValueError("the LoRA updates are damaged: a merged weight is not finite")
    return total


def _draw(update: Any) -> None:
    """Draw the weights of a new update. peft leaves them without values if the weight of the layer is a placeholder."""
    layers = [kind[ADAPTER] for kind in (update.lora_A, update.lora_B)]
    dtype = layers[0].weight.dtype
    for layer in layers:
        layer.to_empty(device="cpu").float()
    update.reset_lora_parameters(ADAPTER, True)
    for layer in layers:
        layer.to(dtype)


def _place(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the parent of the submodule with this dotted name, and the submodule's name in the parent."""
    owner, _, leaf = name.rpartition(".")
    return module.get_submodule(owner), leaf


def _swap_hooks(one: nn.Module, other: nn.Module) -> None:
    """Swap the hooks of two modules. The dicts themselves are swapped because the hooks' handles refer to them."""
    for name in HOOKS:
        own = getattr(one, name)
        setattr(one, name, getattr(other, name))
        setattr(other, name, own)
