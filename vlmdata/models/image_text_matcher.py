"""Probabilities that an image and a text match, by a model of transformers with a matching head. B pairs in a batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoConfig, AutoProcessor, Blip2ForImageTextRetrieval, BlipForImageTextRetrieval

from vlmdata.errors import RecipeError
from vlmdata.models.image_batches import opened_or_none
from vlmdata.models.loaded_weights import weights_hash
from vlmdata.models.weights_identity import unusable_weights
from vlmdata.untrusted import errors_as

KINDS: dict[str, tuple[Any, str, str]] = {  # type of model: its class, the argument that chooses the head, the output of it
    "blip": (BlipForImageTextRetrieval, "use_itm_head", "itm_score"),
    "blip-2": (Blip2ForImageTextRetrieval, "use_image_text_matching_head", "logits_per_image"),
}
MATCH = 1  # the head's output for a match; 0 is that for no match


class ImageTextMatcher:
    """An fp32 model with its processor. It is not thread-safe, because a worker processes one partition at a time."""

    def __init__(self, model: str):
        """Load the model. Raises RecipeError if it cannot be loaded, or if its weights lack a matching head."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with errors_as(lambda error: unusable_weights(model, error), passes=(MemoryError, OSError, RecipeError)):
            config = AutoConfig.from_pretrained(model, trust_remote_code=False)
            if config.model_type not in KINDS:
                raise RecipeError(f"{model} is a model of type {config.model_type}; a matching head is read from {_kinds()}")
            cls, self._chooses, self._output = KINDS[config.model_type]
            self._process = AutoProcessor.from_pretrained(model, trust_remote_code=False)
            net, info = cls.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
        if missing := sorted(name for name in info["missing_keys"] if not name.endswith("position_ids")):
            raise RecipeError(
                f"{model} lacks the weights {', '.join(missing[:3])}, which would be random. Give a model that was trained for "
                "retrieval, such as Salesforce/blip-itm-base-coco"
            )
        text = getattr(config, "text_config" if config.model_type == "blip" else "qformer_config")
        tokenizer = self._process.tokenizer
        tokenizer.model_max_length = min(tokenizer.model_max_length, text.max_position_embeddings)  # longer texts are cut
        self.facts = {"model": model, "weights_sha256": weights_hash(net), "transformers": transformers.__version__}
        self._net = net.to(self.device).eval()

    @torch.inference_mode()
    def probabilities(self, pairs: Iterable[tuple[str, Callable[[], bytes], str]], batch: int) -> np.ndarray:
        """Return the probability of a match for each pair of an image and a text, float32 (B,), in [0, 1].

        A pair is a name of the image, a function that reads its encoded bytes, and the text. Neighbours with the same name
        share the decoded image. An image that cannot be decoded gives NaN. A text that is too long for the model is cut.
        """
        stream = iter(pairs)
        known: tuple[str, Image.Image | None] | None = None
        parts = []
        while group := list(itertools.islice(stream, batch)):
            pictures = []
            for name, read, _ in group:
                if known is None or known[0] != name:
                    known = name, opened_or_none(read())
                pictures.append(known[1])
            found = self._matched([picture or Image.new("RGB", (64, 64)) for picture in pictures], [one[2] for one in group])
            found[[picture is None for picture in pictures]] = np.nan
            parts.append(found)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _matched(self, pictures: list[Image.Image], texts: list[str]) -> np.ndarray:
        inputs = self._process(images=pictures, text=texts, padding=True, truncation=True, return_tensors="pt").to(self.device)
        with self.device:  # BLIP makes a mask on the default device
            output = self._net(**inputs, **{self._chooses: True})
        return getattr(output, self._output).float().softmax(-1)[:, MATCH].cpu().numpy()


def _kinds() -> str:
    return " or ".join(f"{name} ({cls.__name__})" for name, (cls, *_) in KINDS.items())
