"""Compute scores from embeddings with a classifier head: an affine map or a multi-layer perceptron, in numpy.

B embeddings, D their width, C outputs of the last layer, O named scores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmdata.errors import RecipeError
from vlmdata.home_folder import at_home
from vlmdata.models.head_description import Description, description_file, read_description
from vlmdata.models.head_weights import Tensors, file_hash, read_tensors
from vlmdata.similarity.cosine import single_threaded

BLOCK = 1024  # embeddings at a time: 8 MiB for a layer of 2,048 outputs
DIGITS = 4  # of a stored score

Floats = NDArray[np.float32]
Affine = tuple[NDArray[np.float64], NDArray[np.float64], str]  # weight (outputs, inputs), bias (outputs,), activation


def weights_file(head: str, weights: str) -> Path:
    """Return the file of a head's tensors: `weights`, or if it is empty the file that the description names.

    Raises RecipeError, whose message begins with the parameter, if no file is named.
    """
    if weights:
        return Path(at_home(weights))
    named = read_description(head).weights.file
    if not named:
        raise RecipeError("weights: the description of the head names no file. Set `weights` to its .safetensors, .pt or .pth")
    return description_file(head).parent / named


class Head:
    """A head in memory. `names` are those of its scores, in the order of the description."""

    def __init__(self, description: Description, tensors: Tensors):
        self.description = description
        self.names = list(description.outputs)
        self._columns = list(description.outputs.values())
        self._shift: Floats | None = None
        self._scale: Floats | None = None
        if description.input.normalise == "standardise":
            variance = tensors[description.input.variance]
            if not (variance > 0).all():
                raise RecipeError(f"weights: the tensor '{description.input.variance}' must hold positive variances")
            self._shift, self._scale = tensors[description.input.mean], np.sqrt(variance)
        self._layers = [
            (np.ascontiguousarray(w.T, np.float32), b.astype(np.float32), name) for w, b, name in joined(description, tensors)
        ]

    def scores(self, vectors: Floats) -> Floats:
        """Return the named scores of embeddings: (B, D) -> (B, O).

        All scores of an embedding are NaN if one of its numbers or of its scores is not finite, or, with `normalise: l2`, if
        its length is 0. Raises ValueError for embeddings of another width than the head takes.
        """
        if vectors.shape[1] != self.description.input.width:
            raise ValueError(f"the head takes embeddings of width {self.description.input.width}, not {vectors.shape[1]}")
        found = np.empty((len(vectors), len(self.names)), np.float32)
        with np.errstate(all="ignore"), single_threaded():
            for start in range(0, len(vectors), BLOCK):
                found[start : start + BLOCK] = self._block(vectors[start : start + BLOCK].astype(np.float32))
        found[~np.isfinite(found).all(axis=1)] = np.nan
        return found

    def _block(self, values: Floats) -> Floats:
        is_finite = np.isfinite(values).all(axis=1, keepdims=True)
        if self.description.input.normalise == "l2":
            values = values / np.linalg.norm(values, axis=1, keepdims=True)
        if self._shift is not None and self._scale is not None:
            values = (values - self._shift) / self._scale
        for weight, bias, activation in self._layers:
            values = ACTIVATIONS[activation](values @ weight + bias)
        if self.description.final == "softmax":
            powers = np.exp(values - values.max(axis=1, keepdims=True))
            values = powers / powers.sum(axis=1, keepdims=True)
        elif self.description.final == "sigmoid":
            values = _sigmoid(values)
        return np.where(is_finite, values[:, self._columns], np.nan)

    def check_pairs(self) -> None:
        """Raise RecipeError, whose message begins with "head", unless the head reproduces the pairs of its description."""
        pairs, tolerance = self.description.pairs, self.description.tolerance
        if not pairs:
            return
        found = self.scores(np.array([pair.input for pair in pairs], np.float32))
        for number, (pair, row) in enumerate(zip(pairs, found, strict=True), 1):
            for name, score in pair.scores.items():
                own = float(row[self.names.index(name)])
                if not abs(own - score) <= tolerance:
                    raise RecipeError(
                        f"head: pair {number} must give {name} = {score:g}, but these weights give {own:.6g}. "
                        "Give the weights that the pairs were made with, or correct the layers of the description"
                    )


def load_head(head: str, weights: str = "") -> Head:
    """Return a head, after it has reproduced the pairs of its description. Arguments are those of the step `classifier_head`.

    Raises RecipeError, whose message begins with "head" or "weights", for a description or weights that cannot be used.
    """
    description, path = read_description(head), weights_file(head, weights)
    tensors = read_tensors(path, shapes(description))
    stated = description.weights.sha256
    if stated and (own := file_hash(path)) != stated:
        raise RecipeError(f"weights: {path} has the SHA-256 {own}, but the description of the head states {stated}")
    found = Head(description, tensors)
    found.check_pairs()
    return found


def head_identity(head: str, weights: str) -> str:
    """Return a hash of what the scores depend on: the head's weights, and its description without remarks and pairs."""
    tree = read_description(head).model_dump(include={"input", "layers", "outputs", "final"})
    text = json.dumps([tree, file_hash(weights_file(head, weights))], sort_keys=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shapes(description: Description) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that a head needs, by its name.

    Raises RecipeError, whose message begins with "head", if the description gives one tensor two shapes.
    """
    width = description.input.width
    needed: list[tuple[str, tuple[int, ...]]] = []
    if description.input.normalise == "standardise":
        needed += [(description.input.mean, (width,)), (description.input.variance, (width,))]
    for layer in description.layers:
        needed.append((layer.weight, (layer.width, width)))
        if layer.bias:
            needed.append((layer.bias, (layer.width,)))
        width = layer.width
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in needed:
        if found.setdefault(name, shape) != shape:
            raise RecipeError(
                f"head: the tensor '{name}' cannot have both the shape {found[name]} and {shape}. Name each layer's own tensors"
            )
    return found


def joined(description: Description, tensors: Tensors) -> list[Affine]:
    """Return the affine maps with activations between them. Maps with no activation between them are multiplied, in float64.

    LAION's aesthetic head has five layers without activations: one dot product instead of 927,000 products an embedding.
    """
    found: list[Affine] = []
    for layer in description.layers:
        weight = tensors[layer.weight].astype(np.float64)
        bias = tensors[layer.bias].astype(np.float64) if layer.bias else np.zeros(layer.width)
        if found and found[-1][2] == "none" and layer.width <= len(found[-1][0]):  # a wider product would cost more
            before, offset, _ = found.pop()
            weight, bias = weight @ before, weight @ offset + bias
        found.append((weight, bias, layer.activation))
    return found


def _sigmoid(values: Floats) -> Floats:
    return np.where(values >= 0, 1 / (1 + np.exp(-np.abs(values))), np.exp(-np.abs(values)) / (1 + np.exp(-np.abs(values))))


def _gelu(values: Floats) -> Floats:
    """Return x Φ(x), with the error function to 1.5e-7: formula 7.1.26 of Abramowitz and Stegun."""
    size = np.abs(values) / np.float32(np.sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * size)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * np.float32(1.061405429)))))
    return np.asarray(values * (1 + np.sign(values) * (1 - series * np.exp(-size * size))) / 2, np.float32)


ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "none": lambda values: values,
    "relu": lambda values: np.maximum(values, 0),
    "gelu": _gelu,
    "silu": lambda values: values * _sigmoid(values),
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
}
