"""Save a checkpoint's LoRA updates as an adapter of peft, for the published model from which the run started."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from vlmdata_train.convert.save_published import format_of, save_processor
from vlmdata_train.model.model import VisionLanguageModel

Names = Callable[[str], str | None]  # from our name of a weight to the name in transformers
_LEVEL = re.compile(r"\.base_layer(?=\.)|\.lora_[AB]\.default(?=\.)")


def save_adapter(model: VisionLanguageModel, folder: Path, *, base: str, trained: set[str]) -> None:
    """Write the updates of a model with LoRA, its other trained weights, and its processor.

    `base` is the published model, and `trained` holds our names of all trained weights. Raises ValueError if the model has no
    LoRA, or if a trained weight is not in a module that peft can save.
    """
    family = format_of(model)
    processor = family.processor(model)
    their_name = family.their_names(model)
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}
    if not layers:
        raise ValueError("the checkpoint has no LoRA updates. Export it without --adapter")
    tensors: dict[str, Tensor] = {}
    for name, module in layers.items():
        for kind in ("lora_A", "lora_B"):
            weight = getattr(module, kind)["default"].weight
            tensors[f"base_model.model.{_their_module(their_name, name)}.{kind}.weight"] = weight.detach().cpu().contiguous()
    others = _other_modules(model, their_name, {_their_module(their_name, name) for name in layers}, trained)
    for name, weight in model.state_dict().items():
        theirs = their_name(name) or ""
        if theirs.startswith(tuple(f"{module}." for module in others)):
            whole = family.their_tensor(name, weight.detach().cpu().contiguous(), model)
            tensors |= {f"base_model.model.{part}": tensor for part, tensor in family.divided(theirs, whole, model).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(_config(their_name, layers, others, base), indent=2))
    save_processor(processor, folder)


def _config(their_name: Names, layers: dict[str, Any], saved: list[str], base: str) -> dict[str, Any]:
    """Return peft's configuration. Layers whose rank or alpha is not the most common one are listed with their own."""
    names = {_their_module(their_name, name): layer for name, layer in layers.items()}
    ranks = {name: int(layer.r["default"]) for name, layer in names.items()}
    alphas = {name: int(layer.lora_alpha["default"]) for name, layer in names.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    return {
        "peft_type": "LORA", "base_model_name_or_path": base, "inference_mode": True, "bias": "none",
        "r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "target_modules": sorted(names),
        "rank_pattern": {f"^{re.escape(name)}$": own for name, own in ranks.items() if own != rank},
        "alpha_pattern": {f"^{re.escape(name)}$": own for name, own in alphas.items() if own != alpha},
        "modules_to_save": saved or None,
    }  # fmt: skip


def _other_modules(model: VisionLanguageModel, their_name: Names, with_lora: set[str], trained: set[str]) -> list[str]:
    """Return the modules, by their names in transformers, that hold the trained weights outside LoRA. None is within another.

    `with_lora` are the layers with LoRA, also by their names in transformers. Raises ValueError for a weight whose module has
    such a layer, because peft saves a module either whole or as an update.
    """
    found = set()
    for name in sorted(trained & set(dict(model.named_parameters()))):
        if "lora_" in name:
            continue
        module = (their_name(_LEVEL.sub("", name)) or "").rpartition(".")[0]
        if not module or any(f"{layer}.".startswith(f"{module}.") for layer in with_lora):
            raise ValueError(
                f"--adapter: peft cannot save the trained weight '{name}' beside LoRA. Export the model without --adapter, or"
                " freeze this weight by a rule of `parts` in the next run"
            )
        found.add(module)
    return [module for module in sorted(found) if not any(module.startswith(f"{other}.") for other in found)]


def _their_module(their_name: Names, name: str) -> str:
    """Return the name in transformers of one of our modules."""
    theirs = their_name(f"{name}.weight")
    assert theirs is not None, name
    return theirs.removesuffix(".weight")
