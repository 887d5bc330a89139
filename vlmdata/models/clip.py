"""A CLIP of open_clip, loaded once and asked for cosines. B images, D width of the shared space."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import Tensor

from vlmdata.models.clip_names import has_own_weights

DECIMALS = 4  # of a stored cosine: bf16 is good to 5e-3, and no threshold is set more finely


class Clip:
    """Image and text towers with their own preprocessing and tokenizer. Not thread-safe: a worker has one part at a time."""

    def __init__(self, model: str, pretrained: str, precision: str):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.type = choose_precision(precision, self.device)
        tag = None if has_own_weights(model) else pretrained
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(model, pretrained=tag)
        self.tokenizer = open_clip.get_tokenizer(model)
        self.model = self.model.to(self.device, self.type).eval()

    def cosines(self, images: np.ndarray, texts: list[str], owners: list[int], batch: int) -> list[float]:
        """Return the cosine of each text with its image, in [-1, 1], rounded. Unscaled: open_clip's logits are 100 times it.

        `images` are unit embeddings (I, D), `owners[i]` the number of the image that `texts[i]` is held against. Source:
        Hessel et al. 2021, CLIPScore, without its factor 2.5 and its clip at 0.
        """
        if not texts:
            return []
        unique = list(dict.fromkeys(texts))
        number = {text: i for i, text in enumerate(unique)}
        words = self.embed_texts(unique, batch)  # (T, D)
        left, right = images[np.array(owners)], words[np.array([number[text] for text in texts])]
        return np.round((left * right).sum(1), DECIMALS).tolist()

    def embed_images(self, bodies: Iterable[bytes], batch: int) -> np.ndarray:
        """Return unit embeddings (I, D) in fp32. The next batch is decoded while this one is computed."""
        parts = [self._unit(self.model.encode_image, pixels) for pixels in self._batches(bodies, batch)]
        return np.concatenate([part[:count] for part, count in parts]) if parts else np.zeros((0, 1), np.float32)

    def embed_texts(self, texts: list[str], batch: int) -> np.ndarray:
        """Return unit embeddings (T, D) in fp32; a long text is cut at the model's context, as open_clip does."""
        parts = []
        for start in range(0, len(texts), batch):
            tokens = self.tokenizer(texts[start : start + batch])
            parts.append(self._unit(self.model.encode_text, (tokens, len(tokens), batch)))
        return np.concatenate([part[:count] for part, count in parts])

    def _batches(self, bodies: Iterable[bytes], batch: int) -> Iterator[tuple[Tensor, int, int]]:
        with ThreadPoolExecutor(1) as ahead:
            stream = iter(bodies)
            waiting = ahead.submit(self._decode, list(islice(stream, batch)))
            while (pixels := waiting.result()) is not None:
                waiting = ahead.submit(self._decode, list(islice(stream, batch)))
                yield pixels, len(pixels), batch

    def _decode(self, bodies: list[bytes]) -> Tensor | None:
        if not bodies:
            return None
        return torch.stack([self.preprocess(Image.open(io.BytesIO(body)).convert("RGB")) for body in bodies])

    @torch.inference_mode()
    def _unit(self, tower: Any, given: tuple[Tensor, int, int]) -> tuple[np.ndarray, int]:
        """Run a tower on a batch filled up to its full size: an input's result then hangs on its own content alone."""
        batch, count, full = given
        if count < full:
            batch = torch.cat([batch, batch[-1:].expand(full - count, *batch.shape[1:])])
        if batch.is_floating_point():
            batch = batch.to(self.type)  # the weights are too; autocast is slower than fp32 on a CPU
        features = tower(batch.to(self.device)).float()  # (B, D)
        return torch.nn.functional.normalize(features, dim=-1).cpu().numpy(), count


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the type to compute in; `auto` takes bf16 where the device multiplies it faster than fp32."""
    if precision == "auto":
        fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
