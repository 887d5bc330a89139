"""What the families in their authors' own formats share. These formats are read; exports are in the format of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING

from vlmdata_train.convert.family import Family
from vlmdata_train.convert.published import Published, plain_config
from vlmdata_train.model.hf_configs import config_of
from vlmdata_train.model.special_ids import drop_foreign_ids

WORD_TABLES = ("language.model.embed_tokens.weight", "language.lm_head.weight")


class Original(Family):
    """A family whose files have the names and the configuration of its authors' code, which is never run."""

    is_written: ClassVar[bool] = False

    def our_tensor(self, name: str, tensor: Tensor, rows: int) -> Tensor:
        """Return the tensor. Tables of words get rows for the tokens that the trainer adds: the mean of the other rows."""
        if name not in WORD_TABLES or tensor.ndim != 2 or len(tensor) >= rows:
            return tensor
        mean = tensor.float().mean(0, keepdim=True).to(tensor.dtype)
        return torch.cat([tensor, mean.expand(rows - len(tensor), -1)])


def check_files(published: Published) -> None:
    """Raise RecipeError if a model has no weights, or if its folder lacks one of their files.

    The files of a name on the hub are checked when they are read, because looking for them would download them.
    """
    if published.places and Path(published.name).is_dir():
        published.files()


def language_entry(
    start: Published, kind: str, facts: Mapping[str, Any], tokenizer: Any, *, chat_template: str | None
) -> dict[str, Any]:
    """Return a recipe's entry for the causal language model `kind` with the configuration `facts`.

    Entries of `facts` that the class of transformers does not have are left out. The tables of words have as many rows as
    `tokenizer` needs, which has the tokens of images. Raises ValueError for a wrong entry.
    """
    known, old = CONFIG_MAPPING[kind]().to_dict(), ("rope_theta", "rope_scaling")  # the old names of `rope_parameters`
    own = {name: value for name, value in facts.items() if name in known or (name in old and value is not None)}
    try:
        config = config_of({**own, "model_type": kind})
    except ValueError as error:
        raise ValueError(f"language: the configuration of {start.name}: {error}") from None
    drop_foreign_ids(config)
    rows = config.vocab_size
    if rows < len(tokenizer):
        rows = -(-len(tokenizer) // 64) * 64  # rounded up to whole tiles of the matrix units
    tied = start.shares_head(bool(config.tie_word_embeddings))
    template = {} if chat_template is None else {"chat_template": chat_template}
    values = plain_config(config, tie_word_embeddings=tied, vocab_size=rows)
    return {"hf_causal": {"config": values, "tokenizer": start.name, **template}}
