"""The number format and the hash of weights that are loaded with torch."""

from __future__ import annotations

import hashlib
from typing import Any

import torch


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the computation. `auto` is bf16 on devices that multiply bf16 faster than fp32, else fp32."""
    if precision == "auto":
        fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def weights_hash(net: Any) -> str:
    """Return the SHA-256 of the names and values of all loaded weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
