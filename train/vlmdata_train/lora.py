"""Low-rank updates by peft: put beside the linear layers of a part, and folded into them at the end.

Hu et al. 2021, LoRA. The model keeps its class and its own weights' names, so that packing, hooks and saving still work.
"""

from __future__ import annotations

from torch import nn


def merge_lora(module: nn.Module) -> int:
    """Fold every update into the weight beside it, take the updates away, and return how many there were.

    The outputs stay as they were, up to rounding; afterwards the module has the names it had before LoRA.
    """
    if not any("lora_" in name for name, _ in module.named_parameters()):
        return 0
    from peft.tuners.tuners_utils import BaseTunerLayer  # the extra vlmdata[train]

    updated = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, BaseTunerLayer)]
    for name, layer in updated:
        layer.merge(safe_merge=True)  # refuses updates that are not finite
        owner, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(owner), leaf, layer.get_base_layer())
    return len(updated)
