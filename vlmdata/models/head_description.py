"""Descriptions of classifier heads: files that say how the weights of a head turn an embedding into scores.

`heads/` beside this file holds the descriptions of published heads. docs/heads.md explains the fields.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vlmdata.catalog import suggest
from vlmdata.errors import RecipeError
from vlmdata.home_folder import at_home
from vlmdata.read_yaml import read_yaml
from vlmdata.untrusted import shown

SHIPPED = Path(__file__).parent / "heads"
MOST_BYTES = 16 << 20  # of a description; a pair of a head with 1,024 inputs takes 12 kB
WIDEST = 1 << 16  # most numbers of an embedding or of a layer

Width = Annotated[int, Field(ge=1, le=WIDEST)]
Activation = Literal["none", "relu", "gelu", "silu", "tanh", "sigmoid"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Encoder(_Part):
    """The model of open_clip whose embeddings the head takes: one of the names in `models`, with the weights `pretrained`.

    `sha256` is that of the file of its weights. Without `pretrained`, the names alone are compared.
    """

    models: tuple[str, ...] = Field(min_length=1, strict=False)
    pretrained: str = ""
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")


class Input(_Part):
    """The embedding: its width, and what is done before the first layer.

    l2: the vector is divided by its length. standardise: from each number, that of the tensor `mean` is subtracted; the
    result is divided by the square root of the number of the tensor `variance`.
    """

    width: Width
    normalise: Literal["none", "l2", "standardise"]
    mean: str = "mean"
    variance: str = "variance"


class Layer(_Part):
    """An affine map with `width` outputs, and the activation after it. `weight` and `bias` name tensors; "": no bias.

    The shape of the weight is (outputs, inputs), as torch.nn.Linear has it.
    """

    width: Width
    weight: str
    bias: str
    activation: Activation = "none"


class Weights(_Part):
    """The file of the tensors, relative to the description, and its SHA-256. Both can be left out."""

    file: str = ""
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")


class Pair(_Part):
    """An embedding, before `Input.normalise`, and the scores that the head must give for it."""

    input: tuple[float, ...] = Field(strict=False)
    scores: dict[str, float]


class Description(_Part):
    """How a head computes scores. `outputs` maps the names of scores to outputs of the last layer. The first is the main one.

    `final` is applied to all outputs of the last layer. Each pair must be reproduced within `tolerance`.
    """

    about: str = ""
    encoder: Encoder | None = None
    input: Input
    layers: tuple[Layer, ...] = Field(min_length=1, max_length=64, strict=False)
    outputs: dict[str, int] = Field(min_length=1)
    final: Literal["none", "sigmoid", "softmax"] = "none"
    weights: Weights = Weights()
    tolerance: float = Field(1e-3, gt=0)
    pairs: tuple[Pair, ...] = Field((), strict=False)


def shipped_heads() -> list[str]:
    """Return the names of the descriptions that ship with vlmdata, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def description_file(head: str) -> Path:
    """Return the file of a description: that of a shipped head with this name, or the user's own at this path.

    Raises RecipeError, whose message begins with "head", if there is none.
    """
    if head in shipped_heads():
        return SHIPPED / f"{head}.yaml"
    path = Path(at_home(head))
    if not head or not path.is_file():
        raise RecipeError(f"head: there is no file {shown(head)}.{suggest(head, shipped_heads())}")
    return path


def read_description(head: str) -> Description:
    """Return the description of a head, from a YAML or JSON file or by the name of a shipped one.

    Raises RecipeError, whose message begins with "head", for a file that is no description.
    """
    path = description_file(head)
    stat = path.stat()
    if stat.st_size > MOST_BYTES:
        raise RecipeError(f"head: {path} is larger than {MOST_BYTES >> 20} MiB, so it is not a description of a head")
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _read(path: Path, changed_ns: int, size: int) -> Description:
    """Return the description in a file. The time of its last change and its size make a changed file another cache key."""
    try:
        tree = read_yaml(path)
    except RecipeError as error:
        raise RecipeError(f"head: {error}") from None
    return as_description(tree, str(path))


def as_description(tree: Any, where: str) -> Description:
    """Return a description made of plain values. Raises RecipeError, whose message begins with "head: " and `where`."""
    if not isinstance(tree, dict):
        raise RecipeError(
            f"head: {where} is not a description of a head. It must be a mapping with `input`, `layers`, `outputs`"
        )
    try:
        found = Description.model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the description"
        value = "" if first["type"] == "missing" else f", not {shown(first['input'])}"
        raise RecipeError(f"head: {where}: {place}: {first['msg']}{value}") from None
    for problem in _problems(found):
        raise RecipeError(f"head: {where}: {problem}")
    return found


def _problems(head: Description) -> list[str]:
    """Return what is wrong with a description whose fields have the right types, each as one line."""
    last = head.layers[-1].width
    found = [
        f"outputs.{name}: the last layer has the outputs 0 to {last - 1}, not {index}"
        for name, index in head.outputs.items()
        if not 0 <= index < last
    ]
    for number, pair in enumerate(head.pairs, 1):
        if len(pair.input) != head.input.width:
            found.append(f"pair {number}: the input has {len(pair.input)} numbers, but input.width is {head.input.width}")
        if pair.scores.keys() - head.outputs.keys() or not pair.scores:
            found.append(f"pair {number}: scores must have names of outputs: {', '.join(head.outputs)}")
        if not all(map(math.isfinite, (*pair.input, *pair.scores.values()))):
            found.append(f"pair {number}: every number must be finite")
    return found
