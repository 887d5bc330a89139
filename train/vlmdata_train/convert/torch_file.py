"""Read a file of weights that torch saved, `pytorch_model.bin`, with the interface of `safetensors.safe_open`.

Such a file is a pickle, which can run code when it is loaded. torch loads it with `weights_only`, which builds tensors and
plain containers and refuses everything else.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor


class TorchFile:
    """The tensors of a file by name. They are mapped from the file, and read when they are used."""

    def __init__(self, path: Path) -> None:
        """Open a file. Raises ValueError, a predicate without the path, if it holds anything but tensors by name."""
        try:
            # files in torch's format before 1.6 are no zip archives and cannot be mapped
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError:
            raise ValueError("is damaged, or holds other Python objects than tensors, which are never loaded") from None
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            raise ValueError(f"is damaged: {' '.join(str(error).split())}") from None
        if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            raise ValueError("must hold tensors by name")
        self._tensors = {str(name): tensor for name, tensor in tensors.items()}

    def __enter__(self) -> TorchFile:
        """Return the file."""
        return self

    def __exit__(self, *error: object) -> None:
        """Release the tensors, and with the last of them the mapping of the file."""
        self._tensors = {}

    def keys(self) -> list[str]:
        """Return the names of the tensors."""
        return list(self._tensors)

    def get_tensor(self, name: str) -> Tensor:
        """Return a tensor."""
        return self._tensors[name]

    def get_slice(self, name: str) -> Tensor:
        """Return a tensor, of which only the parts that are indexed are read."""
        return self._tensors[name]
