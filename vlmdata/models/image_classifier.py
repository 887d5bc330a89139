"""Compute class probabilities with an image classifier of transformers. B images, C classes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from vlmdata.models.image_batches import opened_or_none
from vlmdata.models.weights_identity import unusable_weights
from vlmdata.untrusted import errors_as


class ImageClassifier:
    """An fp32 model with its preprocessing. It is not thread-safe, because a worker processes one partition at a time."""

    def __init__(self, model: str):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with errors_as(lambda error: unusable_weights(model, error), passes=(MemoryError, OSError)):
            self.preprocess = AutoImageProcessor.from_pretrained(model)
            self.model = AutoModelForImageClassification.from_pretrained(model, dtype=torch.float32).to(self.device).eval()
        self.labels = [self.model.config.id2label[i] for i in range(self.model.config.num_labels)]

    @torch.inference_mode()
    def probabilities(self, bodies: Iterable[bytes], batch: int) -> np.ndarray:
        """Return the softmax over all classes for each image, fp32 (B, C). Images that cannot be decoded give NaN."""
        stream = iter(bodies)
        parts = []
        while group := list(itertools.islice(stream, batch)):
            pictures = [opened_or_none(body) for body in group]
            broken = [picture is None for picture in pictures]
            pictures = [picture or Image.new("RGB", (64, 64)) for picture in pictures]
            pixels = self.preprocess(pictures, return_tensors="pt")["pixel_values"].to(self.device)
            # always a full batch, so that a result depends only on its image
            full = torch.cat([pixels, pixels[-1:].expand(batch - len(group), *pixels.shape[1:])])
            found = self.model(full).logits.softmax(-1)[: len(group)].cpu().numpy()
            found[broken] = np.nan
            parts.append(found)
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), np.float32)
