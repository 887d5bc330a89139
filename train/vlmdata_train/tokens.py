"""Tokenizers: the language model's own, or one of bytes that needs no file; the image token added to either."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

IMAGE = "<image>"
BYTES = "bytes"  # the name of the built-in tokenizer

# Turns that end in the end token, so that a model trained on answers learns to stop.
BYTES_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}"
    "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer by its hub name or folder, or `bytes`, and see that it has an image token and padding.

    The image token keeps its id where the tokenizer already has one; otherwise it is added after the last id.
    """
    tokenizer = byte_tokenizer() if name == BYTES else AutoTokenizer.from_pretrained(name)
    if IMAGE not in tokenizer.get_vocab():
        tokenizer.add_tokens([AddedToken(IMAGE, special=True, normalized=False)])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def image_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id that stands for one image feature in the text."""
    return tokenizer.get_vocab()[IMAGE]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer of 256 bytes and 7 special tokens: no download, no training, any text, 263 ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    roles = ["<|system|>", "<|user|>", "<|assistant|>"]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|pad|>",
        additional_special_tokens=[*roles, IMAGE], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    fast.chat_template = BYTES_CHAT_TEMPLATE
    return fast
