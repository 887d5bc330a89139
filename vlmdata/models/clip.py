"""Compute embeddings and cosines with a CLIP model of open_clip. B images, D width of the shared space."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
import open_clip
import torch
from torch import Tensor

from vlmdata.models.clip_names import has_own_weights, names_at_home
from vlmdata.models.find_gpus import gpus_here
from vlmdata.models.image_batches import PixelCache, preparation
from vlmdata.models.loaded_weights import choose_precision, weights_hash
from vlmdata.models.weights_identity import unusable_tokenizer, unusable_weights
from vlmdata.step import StepContext
from vlmdata.untrusted import errors_as

T = TypeVar("T", bound=Hashable)

DECIMALS = 4  # decimals of a stored cosine; more would not help, because bf16 errs by up to 5e-3
BATCH = {"cuda": 256, "cpu": 16}  # images at a time; larger batches are not faster on one core
TEXTS_KEPT = 4096  # 8 MiB at a width of 512; a partition has about a thousand texts


class Clip:
    """A CLIP model with its preprocessing and tokenizer. It is thread-safe: a lock lets one thread compute at a time."""

    def __init__(
        self,
        model: str,
        pretrained: str,
        precision: str,
        pixels: PixelCache | None = None,
        *,
        compiled: str = "auto",
    ):
        """Load the model. `compiled` says whether to use `torch.compile`: "yes", "no", or "auto" for "yes" only on a GPU."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.type = choose_precision(precision, self.device)
        self.pixels = pixels or PixelCache(decoders())
        tag = None if has_own_weights(model) else pretrained
        with errors_as(lambda error: unusable_weights(f"{model} {tag or ''}".strip(), error), passes=(MemoryError, OSError)):
            net, _, preprocess = open_clip.create_model_and_transforms(model, pretrained=tag)
        self.prepare = preparation(preprocess)
        self.sides: tuple[int, int] = open_clip.get_model_preprocess_cfg(net)["size"]
        with errors_as(lambda error: unusable_tokenizer(model, error), passes=(MemoryError, OSError)):
            self.tokenizer = open_clip.get_tokenizer(model)
        is_compiled = compiled == "yes" or (compiled == "auto" and self.device.type == "cuda")
        self.facts = {
            "model": model,
            "pretrained": tag,
            "weights_sha256": weights_hash(net),
            "preprocessing": {"resize": self.prepare.name, "mean": self.prepare.mean, "std": self.prepare.std},
            "computed": f"{str(self.type).removeprefix('torch.')} on {self.device.type}{', compiled' if is_compiled else ''}",
        }
        net = net.to(self.device, self.type).eval()
        self._image_tower: Callable[[Tensor], Tensor] = torch.compile(net.encode_image) if is_compiled else net.encode_image
        self._text_tower: Callable[[Tensor], Tensor] = torch.compile(net.encode_text) if is_compiled else net.encode_text
        self._mean, self._std = (
            torch.tensor(values, device=self.device).view(3, 1, 1) for values in (self.prepare.mean, self.prepare.std)
        )
        self._computing = threading.Lock()
        self._latest: OrderedDict[str, np.ndarray] = OrderedDict()
        self._keeping = threading.Lock()

    def cosines(self, images: np.ndarray, texts: list[str], owners: list[int], batch: int = 0) -> list[float]:
        """Return the cosine of each text with its image, in [-1, 1], rounded to 4 decimals.

        Multiply by 100 to get open_clip's logits. `images` are unit embeddings (I, D) of I images, and `owners[i]` is the
        number of the image to compare with `texts[i]`. Source: Hessel et al. 2021, CLIPScore, without the factor 2.5 and the
        clip at 0.
        """
        if not texts:
            return []
        unique = list(dict.fromkeys(texts))
        number = {text: i for i, text in enumerate(unique)}
        words = self.embed_texts(unique, batch)  # (T, D)
        left, right = images[np.array(owners)], words[np.array([number[text] for text in texts])]
        return np.round((left * right).sum(1), DECIMALS).tolist()

    def embed_images(self, images: Sequence[T], batch: int = 0, read: Callable[[T], bytes] = bytes) -> np.ndarray:  # type: ignore[assignment]
        """Return fp32 unit embeddings (I, D) of I images. `read` returns an image's encoded bytes. Broken images give NaN.

        Threads read and decode the next batches while the current one is computed. Copies to a GPU are asynchronous.
        """
        size = batch or BATCH[self.device.type]
        parts = []
        broken = np.zeros(len(images), bool)
        for number, some in enumerate(self.pixels.batches(self.prepare, images, read, size)):
            pixels = self._host((size, 3, *self.sides), torch.uint8)
            for place in range(size):
                image = some[min(place, len(some) - 1)]
                pixels[place] = torch.from_numpy(image) if image is not None else 0
            broken[number * size : number * size + len(some)] = [one is None for one in some]
            parts.append(self.image_units(pixels)[: len(some)])
        units: np.ndarray = torch.cat(parts).cpu().numpy() if parts else np.zeros((0, 1), np.float32)
        units[broken] = np.nan
        return units

    def embed_texts(self, texts: list[str], batch: int = 0) -> np.ndarray:
        """Return fp32 unit embeddings (T, D) of T texts. A long text is cut at the model's context length, as in open_clip.

        The latest `TEXTS_KEPT` embeddings are kept, because two steps may need those of a partition's texts.
        """
        with self._keeping:
            found = {text: self._latest[text] for text in texts if text in self._latest}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        found.update(zip(missing, self._embed_texts(missing, batch), strict=True))
        with self._keeping:
            self._latest.update((text, found[text]) for text in missing[-TEXTS_KEPT:])
            while len(self._latest) > TEXTS_KEPT:
                self._latest.popitem(last=False)
        return np.stack([found[text] for text in texts]) if texts else np.zeros((0, 1), np.float32)

    def _embed_texts(self, texts: list[str], batch: int) -> np.ndarray:
        size = batch or BATCH[self.device.type]
        parts = []
        for start in range(0, len(texts), size):
            some = self.tokenizer(texts[start : start + size])
            tokens = self._host((size, *some.shape[1:]), some.dtype)
            tokens[: len(some)], tokens[len(some) :] = some, some[-1:]
            parts.append(self.text_units(tokens)[: len(some)])
        return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, 1), np.float32)

    def image_units(self, pixels: Tensor) -> Tensor:
        """Return unit embeddings of prepared images on the device: (B, 3, H, W) uint8 -> (B, D) fp32."""
        return self._unit(self._encode_pixels, pixels)

    def text_units(self, tokens: Tensor) -> Tensor:
        """Return unit embeddings of tokenized texts on the device: (B, context length) -> (B, D) fp32."""
        return self._unit(self._text_tower, tokens)

    def _host(self, shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
        """Return an uninitialized tensor in host memory for a full batch. The memory is pinned if the device is a GPU.

        torch reuses pinned memory only after the copy to the GPU is done. Every batch has full size, so that a result depends
        only on its input and a compiled model sees one shape.
        """
        return torch.empty(shape, dtype=kind, pin_memory=self.device.type == "cuda")

    def _encode_pixels(self, pixels: Tensor) -> Tensor:
        """Return the features of images: (B, 3, H, W) uint8 -> (B, D). Pixels are scaled as in open_clip's transforms."""
        scaled = (pixels.float() / 255 - self._mean) / self._std
        return self._image_tower(scaled.to(self.type))  # autocast is slower than fp32 on a CPU

    @torch.inference_mode()
    def _unit(self, tower: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        with self._computing:
            features = tower(batch.to(self.device, non_blocking=True)).float()
            return torch.nn.functional.normalize(features, dim=-1)  # (B, D)


def clip_of(context: StepContext, model: str, pretrained: str, precision: str = "auto", compiled: str = "auto") -> Clip:
    """Return the worker's `Clip` for these parameters. All models of a worker share decoding threads and decoded images."""
    model, pretrained = names_at_home(model, pretrained)
    pixels = context.kept("pixels", lambda: PixelCache(decoders()))
    name = f"clip {model} {pretrained} {precision} {compiled}"
    return context.kept(name, lambda: Clip(model, pretrained, precision, pixels, compiled=compiled))


def decoders() -> int:
    """Return the number of decoding threads.

    On a machine with GPUs, this is the number of cores per GPU. On other machines it is 1, because a worker has one core.
    """
    if not torch.cuda.is_available():
        return 1
    return max(1, len(os.sched_getaffinity(0)) // max(gpus_here(), torch.cuda.device_count()))
