"""Make the inputs of a model of transformers from prompts. B prompts in a batch, T tokens of the longest one.

Shorter prompts are padded at the left. Every batch is full: the last prompt is repeated, so that an answer depends only on its
prompt and on the length of the longest prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    PretrainedConfig,
)

from vlmdata.errors import GeneratorStopped, RecipeError
from vlmdata.generator import Prompt
from vlmdata.models.chat_form import PROBE, ChatForm
from vlmdata.models.image_batches import opened
from vlmdata.models.weights_identity import unusable_tokenizer, unusable_weights
from vlmdata.process.shortage import is_short_of_memory
from vlmdata.untrusted import Failed, errors_as, one_line

Written = tuple[str, tuple[bytes, ...]]  # a prompt in the model's form, with its encoded images


@dataclass(frozen=True)
class Prepared:
    """The inputs of a full batch."""

    tensors: Mapping[str, Tensor]  # by the names of the model's parameters
    lengths: list[int]  # tokens of each prompt without padding; copies that fill the batch are not listed


class TextInputs:
    """The inputs of a model that only reads text."""

    sees_images = False

    def __init__(self, model: str):
        """Load the tokenizer. Raises RecipeError if it or its chat template cannot be used."""
        with errors_as(lambda error: unusable_tokenizer(model, error), passes=(MemoryError, OSError)):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        self.pad = _set_padding(self.tokenizer)
        self.form = ChatForm(self.tokenizer, self.tokenizer, None, model)

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a prompt in the model's form."""
        return self.tokenizer(text, add_special_tokens=self.form.is_plain, verbose=False)["input_ids"]

    def prepared(self, prompts: Sequence[Written], full: int) -> tuple[Prepared | None, dict[int, str]]:
        """Return the inputs of a batch of `full` prompts, or None and the failure of each prompt that cannot be used."""
        rows = [self.tokens(text) for text, _ in prompts]
        if bad := {place: "bad_prompt" for place, row in enumerate(rows) if not row}:
            return None, bad
        lengths = [len(row) for row in rows]
        rows += [rows[-1]] * (full - len(rows))
        longest = max(lengths)
        ids = torch.tensor([[self.pad] * (longest - len(row)) + row for row in rows])  # (B, T)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return Prepared({"input_ids": ids, "attention_mask": mask}, lengths), {}


class ImageInputs:
    """The inputs of a model that sees images and reads text."""

    sees_images = True

    def __init__(self, model: str):
        """Load the processor, and try it with an image. Raises RecipeError if it or its chat template cannot be used."""
        self._model = model
        with errors_as(lambda error: _unusable_processor(model, error), passes=(MemoryError, OSError)):
            self._processor: Any = AutoProcessor.from_pretrained(model, trust_remote_code=False)
            self.tokenizer: Any = self._processor.tokenizer  # a folder without a processor gives a tokenizer, which has none
        self.pad = _set_padding(self.tokenizer)
        token = getattr(self._processor, "boi_token", None) or getattr(self._processor, "image_token", None)
        self.image_token = None if token is None else str(token)  # stands for an image in a text
        self.form = ChatForm(self._processor, self.tokenizer, self.image_token, model)
        picture = Image.new("RGB", (64, 48))
        if self.form.is_plain and self._writes_images(picture):
            self.form = ChatForm(self._processor, self.tokenizer, None, model)
        with errors_as(lambda error: _unusable_processor(model, error), passes=(MemoryError,)):
            self._tensors([self.form.text(Prompt(PROBE.text, (b"",)))], [[picture]])

    def _writes_images(self, picture: Image.Image) -> bool:
        """Return whether the processor adds the tokens of an image to a text that has none, as that of BLIP-2 does."""
        try:
            with errors_as(Failed, passes=(MemoryError,)):
                tensors = self._tensors([PROBE.text], [[picture]])
        except Failed:
            return False
        return tensors["input_ids"].shape[1] > len(self.tokens(PROBE.text))

    def prepared(self, prompts: Sequence[Written], full: int) -> tuple[Prepared | None, dict[int, str]]:
        """Return the inputs of a batch of `full` prompts, or None and the failure of each prompt that cannot be used.

        All prompts have the same number of images.
        """
        texts = [text for text, _ in prompts]
        pictures = [decoded(images) for _, images in prompts]
        if bad := {place: "bad_image" for place, images in enumerate(pictures) if images is None}:
            return None, bad
        seen = [images for images in pictures if images is not None]
        more = full - len(prompts)
        try:
            with errors_as(Failed, passes=(MemoryError,)):
                tensors = self._tensors(texts + texts[-1:] * more, seen + seen[-1:] * more)
        except Failed as failed:
            if is_short_of_memory(failed.args[0]):
                raise failed.args[0] from None
            return None, self._refused(texts, seen, failed)
        return Prepared(tensors, tensors["attention_mask"][: len(texts)].sum(-1).tolist()), {}

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a prompt in the model's form, in which an image is not yet repeated for its patches."""
        return self.tokenizer(text, add_special_tokens=self._adds_special(text), verbose=False)["input_ids"]

    def _adds_special(self, text: str) -> bool:
        """Return whether the tokenizer adds special tokens, by the rule of transformers for chat templates of processors."""
        begin = self.tokenizer.bos_token
        return self.form.is_plain or begin is None or not text.startswith(begin)

    def _tensors(self, texts: list[str], images: list[list[Image.Image]]) -> Mapping[str, Tensor]:
        return self._processor(
            text=texts,
            images=images if images[0] else None,
            padding=True,
            add_special_tokens=self._adds_special(texts[0]),
            return_tensors="pt",
        )

    def _refused(self, texts: list[str], images: list[list[Image.Image]], failed: Failed) -> dict[int, str]:
        """Return the failures of the prompts that the processor also refuses alone, such as one with a very narrow image."""
        bad = {}
        for place, (text, some) in enumerate(zip(texts, images, strict=True)):
            try:
                with errors_as(Failed, passes=(MemoryError,)):
                    self._tensors([text], [some])
            except Failed:
                bad[place] = "bad_prompt"
        if not bad:
            said = one_line(failed.args[0])[:200]
            raise GeneratorStopped(f"hf: the processor of {self._model} cannot make a batch: {said}. Set batch: 1")
        return bad


def inputs_of(model: str) -> tuple[TextInputs | ImageInputs, PretrainedConfig]:
    """Return what makes the inputs of a model, and the model's configuration.

    Raises RecipeError if the model does not write text, or if its files cannot be used.
    """
    with errors_as(lambda error: unusable_weights(model, error), passes=(MemoryError, OSError)):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return ImageInputs(model), config
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        return TextInputs(model), config
    raise RecipeError(f"model: {model} is a {config.model_type}, which does not write text. Give a model that does")


def decoded(images: Sequence[bytes]) -> list[Image.Image] | None:
    """Return the images in RGB, or None if one of them cannot be decoded within the default limits."""
    try:
        with errors_as(Failed, passes=(MemoryError,)):
            return [opened(body) for body in images]
    except Failed:
        return None


def _set_padding(tokenizer: Any) -> int:
    """Let the tokenizer pad at the left. Return the padding token, which no model attends to."""
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    return int(tokenizer.pad_token_id)


def _unusable_processor(model: str, error: Exception) -> Exception:
    cause = error.args[0] if isinstance(error, Failed) else error
    if isinstance(cause, RecipeError) or is_short_of_memory(cause):
        return cause
    return RecipeError(
        f"the processor of {model} cannot be used: {one_line(cause)[:300].rstrip('. ')}. Copy its files again, such as "
        "processor_config.json and preprocessor_config.json"
    )
