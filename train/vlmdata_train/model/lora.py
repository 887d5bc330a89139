"""Low-rank updates by peft: put beside the linear layers of a part, and folded into them at the end.

Hu et al. 2021, LoRA. The model keeps its class and its own weights' names, so that packing, hooks and saving still work.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from vlmdata_train.model.model_recipe import Lora

# They hand the weights of their linear layers to a kernel and do not call the layers: an update beside one would not run.
UNCALLED_IN = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
HOOKS = (
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_backward_pre_hooks", "_backward_hooks",
)  # fmt: skip


def add_lora(module: nn.Module, lora: Lora) -> int:
    """Put an update beside each linear layer that a part calls, freeze all else in it, and return how many there are.

    What was hooked to a layer then runs after layer and update. ValueError: there is no layer for an update.
    """
    from peft import LoraConfig, inject_adapter_in_model  # the extra vlmdata[train]

    layers = linear_layers(module)
    if not layers:
        raise ValueError(f"lora: {type(module).__name__} has no linear layer that takes an update; train it without `lora`")
    targets = "|".join(map(re.escape, layers))  # whole names: in a list, `1` would mean `block.1` too
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    inject_adapter_in_model(config, module)  # in place, and freezes everything but what it adds
    updated: dict[nn.Module, nn.Module] = {}
    for name, layer in layers.items():
        owner, leaf = _place(module, name)
        if layer not in updated:
            updated[layer] = owner.get_submodule(leaf)
            _swap_hooks(layer, updated[layer])
        setattr(owner, leaf, updated[layer])  # also where a layer has a second place, which peft leaves
    return len(updated)


def linear_layers(module: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers of a part that can have an update, by name. ValueError: the part itself is one.

    That is all but the head of a language model, layers that the tower's chosen features never reach, and layers whose
    weight is taken by their owner and which it does not call: attention of torch and of open_clip's own towers.
    """
    head = module.get_output_embeddings() if isinstance(module, PreTrainedModel) else None
    found = {}
    for name, layer in module.named_modules(remove_duplicate=False):
        if not isinstance(layer, nn.Linear) or layer is head or not name or isinstance(_place(module, name)[0], UNCALLED_IN):
            continue
        is_reached = "weight" in dict(layer.named_parameters(recurse=False))  # otherwise it is a buffer: unused.py
        if is_reached and getattr(layer, "is_called", True):  # unused.py marks the layers of the towers that it runs
            found[name] = layer
    # A layer with its update takes the layer's place in its owner, and `VisionLanguageModel.parts` shows no owner of these.
    if isinstance(module, nn.Linear) or (type(module) is nn.ModuleList and any(name.isdecimal() for name in found)):
        raise ValueError("lora: the part is a single linear layer, which has room for no update; train it without `lora`")
    return found


def closed_gates(module: nn.Module) -> list[str]:
    """Name the gates of a part, numbers or vectors, that let nothing through: all 0."""
    return [name for name, p in module.named_parameters() if name.endswith("_gate") and p.ndim <= 1 and not p.any()]


def merge_lora(module: nn.Module) -> int:
    """Fold every update into the weight beside it, take the updates away, and return how many there were.

    The outputs stay as they were, up to rounding; afterwards the module has the names and hooks it had before LoRA.
    """
    if not any("lora_" in name for name, _ in module.named_parameters()):
        return 0
    from peft.tuners.tuners_utils import BaseTunerLayer  # the extra vlmdata[train]

    modules = list(module.named_modules(remove_duplicate=False))
    updated: set[Any] = {layer for _, layer in modules if isinstance(layer, BaseTunerLayer)}
    for layer in updated:
        layer.merge(safe_merge=True)  # refuses updates that are not finite
        _swap_hooks(layer, layer.get_base_layer())
    for name, layer in modules:
        if layer in updated:
            setattr(*_place(module, name), layer.get_base_layer())
    for part in module.modules():
        vars(part).pop("peft_config", None)  # peft's note of what was injected; with one left it warns at the next LoRA
    return len(updated)


def _place(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the owner of a module by its whole name, and its name there."""
    owner, _, leaf = name.rpartition(".")
    return module.get_submodule(owner), leaf


def _swap_hooks(one: nn.Module, other: nn.Module) -> None:
    """Exchange the hooks of two modules. The dicts themselves change hands: a hook's handle finds its hook in them."""
    for name in HOOKS:
        own = getattr(one, name)
        setattr(one, name, getattr(other, name))
        setattr(other, name, own)
