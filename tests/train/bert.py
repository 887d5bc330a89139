"""A tokenizer like BERT's with a small vocabulary, for abstractors that read the question with a second tokenizer."""

from __future__ import annotations

from transformers import BertTokenizer

WORDS = ["what", "colour", "is", "it", "how", "many", "are", "there", "?", ".", "red", "##dish"]


def bert_tokenizer(**options: str) -> BertTokenizer:
    """Return the tokenizer, which puts [CLS] before a text and [SEP] after it, with these options of its class."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return BertTokenizer(vocab={name: number for number, name in enumerate(names)}, **options)
