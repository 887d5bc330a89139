"""The ids of a question for an abstractor: with the language model's tokenizer, or with a second tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from vlmdata_train.model.tokens import BYTES, byte_tokenizer, published_tokenizer


@cache
def load_question_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer in this folder or with this name on the hub, or the built-in tokenizer for `bytes`.

    A name on the hub may go on with a folder of the model: `OWNER/MODEL/FOLDER`.
    """
    if name == BYTES:
        tokenizer: PreTrainedTokenizerBase = byte_tokenizer()
    elif name.count("/") < 2 or name.startswith(("/", ".", "~")) or Path(name).is_dir():
        tokenizer = published_tokenizer(name)
    else:
        owner, model, folder = name.split("/", 2)
        tokenizer = published_tokenizer(f"{owner}/{model}", subfolder=folder)
    tokenizer("")  # removes the truncation and padding of its file, which several threads must not do at once
    return tokenizer


def question_ids(tokenizer: Any, text: str, most: int) -> list[int]:
    """Return the ids of a text, with the tokens that the tokenizer adds around any text, and at most `most` in all.

    If there are more, the last tokens of the text are left out, or the first ones if the tokenizer's `truncation_side` is
    `left`, as in InstructBLIP's files. The added tokens stay. This is what truncation by transformers does, but truncation
    would change the tokenizer while other threads use it.
    """
    encoded = tokenizer(text, return_special_tokens_mask=True, verbose=False)
    ids, added = encoded["input_ids"], encoded["special_tokens_mask"]
    words = [number for number, is_added in enumerate(added) if not is_added]
    if tokenizer.truncation_side == "left":
        words.reverse()
    left_out = set(words[max(0, most - sum(added)) :])
    return [token for number, token in enumerate(ids) if number not in left_out]


def words_of(tokenizer: Any, text: str, most: int) -> list[int]:
    """Return the first `most` ids of a text, without tokens that the tokenizer adds around it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids[:most]
