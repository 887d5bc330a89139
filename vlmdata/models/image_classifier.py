"""An image classifier of transformers, loaded once and asked for probabilities. B images, C classes."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification


class ImageClassifier:
    """Weights with their own preprocessing, in fp32. Not thread-safe: a worker has one part at a time."""

    def __init__(self, model: str):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.preprocess = AutoImageProcessor.from_pretrained(model)
        self.model = AutoModelForImageClassification.from_pretrained(model, dtype=torch.float32).to(self.device).eval()
        self.labels = [self.model.config.id2label[i] for i in range(self.model.config.num_labels)]

    @torch.inference_mode()
    def probabilities(self, bodies: Iterable[bytes], batch: int) -> np.ndarray:
        """Return the probability of each class, fp32 (B, C): the softmax over all classes."""
        stream = iter(bodies)
        parts = []
        while group := list(itertools.islice(stream, batch)):
            pictures = [Image.open(io.BytesIO(body)).convert("RGB") for body in group]
            pixels = self.preprocess(pictures, return_tensors="pt")["pixel_values"].to(self.device)
            # always a full batch: what an image gets then hangs on it alone
            full = torch.cat([pixels, pixels[-1:].expand(batch - len(group), *pixels.shape[1:])])
            parts.append(self.model(full).logits.softmax(-1)[: len(group)].cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, len(self.labels)), np.float32)
