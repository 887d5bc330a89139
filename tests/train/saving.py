"""Save checkpoints of any small module, for tests and for a process that a test kills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlmdata_train.convert import checkpoint
from vlmdata_train.distributed import Ranks

RANKS = Ranks(0, 1, torch.device("cpu"))


class NoTokenizer:
    """A tokenizer that saves nothing but its folder."""

    def save_pretrained(self, folder: Path) -> None:
        """Make the folder."""
        folder.mkdir()


def save(folder: Path, model: nn.Module, optimizer: Any, step: int) -> Path:
    """Write the checkpoint of one step."""
    saved = checkpoint.Saved(step, [], [checkpoint.random_states(RANKS.device)], {})
    tokenizers = {"tokenizer": NoTokenizer()}
    return checkpoint.save(folder, model, optimizer, saved=saved, recipe={}, tokenizers=tokenizers, ranks=RANKS)
