"""Load tokenizers with an image token: the language model's tokenizer, or a built-in tokenizer of bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import cached_file

from vlmdata_train.model.reading import Damaged, read_published

IMAGE = "<image>"
# Image tokens of published models. A tokenizer uses one of them if its chat template writes it.
OTHERS = ("<|image_pad|>", "<|image|>", "<IMG_CONTEXT>", "<image_soft_token>", "[IMG]", "<image_placeholder>")
BYTES = "bytes"  # the name of the built-in tokenizer
BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"  # special tokens of our own tokenizers
ROLES = ["<|system|>", "<|user|>", "<|assistant|>"]

# Each turn ends with the end token, so that a model trained on answers learns to stop.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def load_tokenizer(
    name: str, chat_template: str | None = None, *, image: str | None = None, literals: Sequence[str] = ()
) -> PreTrainedTokenizerBase:
    """Return a tokenizer with an image token, a padding token and its model's chat template.

    `name` is a name on the hub, a folder, or `bytes` for the built-in tokenizer. `chat_template` replaces the chat template.
    `image` is the image token, or None for the token that `image_token` returns. `literals` are other tokens that are written
    for images. A token that the tokenizer already has keeps its id. Missing tokens are added after the last id. All of them
    become special tokens, even if the vocabulary has them as ordinary pieces, as in Fuyu.
    """
    tokenizer = byte_tokenizer() if name == BYTES else published_tokenizer(name)
    template = chat_template or (None if name == BYTES else processor_template(name))
    if template is not None:
        tokenizer.chat_template = template
    names = [image or image_token(tokenizer), *literals]
    known = tokenizer.get_added_vocab()
    tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names if name not in known])
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": tokenizer.eos_token or PAD})
    return tokenizer


def published_tokenizer(name: str, subfolder: str = "") -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder or a hub name, or of a folder in it, as it is. Code in its folder is never run.

    Raises ValueError if the tokenizer needs such code, or SentencePiece, which is not installed, and if its files are damaged.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = read_published(AutoTokenizer.from_pretrained, name, subfolder=subfolder)
    except Damaged as error:
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"the tokenizer of {name} is Python code in its folder, which is never run. Convert it once to tokenizer.json,"
                " put this file into the folder, and remove `auto_map` from tokenizer_config.json"
            ) from None
        if "tiktoken" in str(error) and find_spec("sentencepiece") is None:  # transformers tries tiktoken without it
            raise ValueError(f"the tokenizer of {name} is a SentencePiece file. pip install sentencepiece protobuf") from None
        raise ValueError(f"the tokenizer of {name} cannot be read: {error}") from None
    return tokenizer


def processor_template(name: str) -> str | None:
    """Return the chat template in the files of a model's processor, or None if these files have no template.

    Models publish the template in `chat_template.json` or `processor_config.json`. This function does not read
    `chat_template.jinja`, because that is also a file of the tokenizer. Raises ValueError for a file that is not JSON.
    """
    for file in ("chat_template.json", "processor_config.json"):
        found = cached_file(
            name, file, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )  # fmt: skip
        try:
            facts = json.loads(Path(found).read_text()) if found else {}
        except ValueError as error:
            raise ValueError(f"{found} is not JSON: {error}") from None
        if isinstance(facts, dict) and isinstance(facts.get("chat_template"), str):
            return str(facts["chat_template"])
    return None


def image_token(tokenizer: PreTrainedTokenizerBase, image: str | None = None) -> str:
    """Return the token that the features of an image replace: `image`, else `<image>` or the tokenizer's own image token."""
    if image is not None:
        return image
    known = tokenizer.backend_tokenizer.token_to_id
    if known(IMAGE) is None:
        template = json.dumps(tokenizer.chat_template, ensure_ascii=False)
        return next((name for name in OTHERS if name in template and known(name) is not None), IMAGE)
    return IMAGE


def image_token_id(tokenizer: PreTrainedTokenizerBase, image: str | None = None) -> int:
    """Return the id of the image token; see `image_token`."""
    return int(tokenizer.backend_tokenizer.token_to_id(image_token(tokenizer, image)))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of 256 bytes and 7 special tokens. It encodes any text without a download or training."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=PAD,
        additional_special_tokens=[*ROLES, IMAGE], clean_up_tokenization_spaces=False, name_or_path=BYTES,
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    return fast
