"""The training recipe: the model, the data, and how the parts of the model are trained."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from vlmdata import catalog
from vlmdata.arguments import check_weights
from vlmdata.redact import redacted_tree
from vlmdata.step import RecipeError
from vlmdata.untrusted import shown
from vlmdata_train.model.box_form import box_form
from vlmdata_train.model.model_recipe import ModelRecipe, Part, check_range
from vlmdata_train.model.parts import check_name

MOST_THREADS = 4096  # torch starts as many threads as are set, and the process dies if there is no memory for them


@dataclass(frozen=True, kw_only=True)
class TinyTokenizer:
    """A byte-level BPE with a chat template, trained on the dataset's texts at the start of the run."""

    vocabulary: int = 2048  # maximum number of tokens
    samples: int = 5000  # number of samples to train the tokenizer on

    def __post_init__(self) -> None:
        check_range(self, "vocabulary", least=264)  # number of bytes and special tokens
        check_range(self, "samples", least=1)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How samples are put into rows of tokens."""

    tokens: int = 8192  # number of tokens in a packed row
    sample_tokens: int = 2048  # maximum tokens of a sample; a longer sample is cut, but never inside an image
    pack: bool = True  # true: put several samples in a row, without attention between them; false: pad samples to the longest
    samples: int = 8  # samples per forward pass without packing
    accumulate: int = 1  # forward passes per optimizer step, on each rank
    window: int = 1 << 16  # samples packed together; a larger window fills rows better, and a smaller one mixes lengths better
    workers: int = 2  # number of threads per rank that decode and tokenize; as many processes measure lengths at the start
    ahead: int = 4  # number of batches to prefetch

    def __post_init__(self) -> None:
        check_range(self, "tokens sample_tokens samples accumulate window ahead", least=1)
        check_range(self, "workers", least=1, below=MOST_THREADS + 1)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """The parameters of AdamW and of the learning rate schedule."""

    weight_decay: float = 0.0  # for matrices, not for norms and biases; LLaVA-1.5's value
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    compact: bool = False  # with bf16 weights, keep the first moment in bf16 too, which saves 2 bytes per weight
    clip: float = 1.0  # maximum norm of all gradients together; 0: no limit
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.03  # length of the warmup as a share of the run; LLaVA-1.5's value

    def __post_init__(self) -> None:
        check_range(self, "weight_decay eps clip", least=0)
        check_range(self, "beta1 beta2 warmup", least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Device, precision and memory. With `bf16`, the optimizer also stores the lower half of each fp32 weight."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "autocast", "bf16"] = "fp32"
    threads: int | None = None  # torch's CPU threads; None: torch's default, which is slow if other programs use the CPU
    compile: bool = False  # whether to compile each block of the language model and of the encoder
    recompute: Literal["auto", "none", "all"] = "auto"  # which activations to recompute; auto: as few as GPU memory allows
    parallel: Literal["ddp", "fsdp"] = "ddp"
    loss_chunk: int = 2048  # number of answer tokens whose logits are in memory at a time

    def __post_init__(self) -> None:
        check_range(self, "threads", least=1, below=MOST_THREADS + 1)
        check_range(self, "loss_chunk", least=1)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When checkpoints are saved, and which are kept."""

    every: int = 500  # steps between checkpoints; the last step is saved as well; 0: save none, to measure speed
    keep: int = 2  # number of newest checkpoints to keep
    keep_best: bool = True  # whether to keep the checkpoint with the lowest held-out loss as well

    def __post_init__(self) -> None:
        check_range(self, "every", least=0)
        check_range(self, "keep", least=1)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Data for evaluation only: a share of the samples, chosen by their keys, or another dataset."""

    fraction: float = 0.0  # share of the samples, 0 to 1
    path: str | None = None  # path or URL of another dataset
    every: int = 200  # steps between evaluations
    samples: int = 256  # maximum number of samples for the loss
    answers: int = 0  # number of samples for which answers are generated at each evaluation
    answer_tokens: int = 32  # maximum tokens of a generated answer

    def __post_init__(self) -> None:
        check_range(self, "fraction", least=0, below=1)
        check_range(self, "every samples answer_tokens", least=1)
        check_range(self, "answers", least=0)


@dataclass(frozen=True, kw_only=True)
class Logs:
    """What is logged, and what happens if the loss is NaN or has a spike."""

    every: int = 10  # steps between log records
    tensorboard: bool = True
    wandb: str | None = None  # name of the W&B project; None: off
    on_nan: Literal["stop", "skip"] = "stop"
    on_spike: Literal["stop", "skip", "tell"] = "tell"
    spike: float = 6.0  # a loss is a spike if it exceeds the mean of the last 100 losses by this many standard deviations

    def __post_init__(self) -> None:
        check_range(self, "every", least=1)
        if not self.spike >= 0:  # also for NaN; infinity means that no loss is a spike
            raise ValueError(f"spike must be 0 or more, not {self.spike}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The choices of one training run. If a recipe file has no `model`, the model and tokenizer of `start` are used."""

    stage: Literal["align", "instruct"]
    model: ModelRecipe
    data: str | dict[str, float]  # a dataset, or datasets and the share of samples drawn from each
    captions: dict[str, float] | None = None  # weights of `raw`, `synthetic` or a step's captions; None: all are equally likely
    augment: str | None = None  # name of the dataset's step `augment`, whose views are applied to images in training
    out: str  # folder of the run
    tokenizer: TinyTokenizer | None = None  # a tokenizer to train on the data; None: the language model's tokenizer
    chat_template: str | None = None  # Jinja or a Jinja file, instead of the tokenizer's template
    trusted_tokens: list[str] = field(default_factory=list)  # control tokens that the data may contain: boxes, tools, reasoning
    loss: Literal["all", "last"] = "all"  # which answers of a conversation have a loss
    start: str | None = None  # initial weights: a checkpoint, or a model in LLaVA's format (a folder or hub name)
    parts: dict[str, Part] = field(default_factory=dict)
    lr: float = 1e-3
    steps: int | None = None  # number of optimizer steps; set either `steps` or `epochs`
    epochs: float | None = None  # number of passes over the data
    seed: int = 0
    batches: Batches = field(default_factory=Batches)
    optimizer: Optimizer = field(default_factory=Optimizer)
    speed: Speed = field(default_factory=Speed)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    held_out: HeldOut = field(default_factory=HeldOut)
    logs: Logs = field(default_factory=Logs)

    def __post_init__(self) -> None:
        check_range(self, "lr", least=0)
        check_range(self, "steps", least=1)
        if self.captions is not None:
            check_weights(captions=self.captions)
        check_range(self, "seed", least=-(2**63), below=2**64)  # what torch takes
        if self.epochs is not None and not 0 < self.epochs < float("inf"):
            raise ValueError(f"epochs must be more than 0, not {self.epochs}")

    def describe(self) -> dict[str, Any]:
        """Return the whole recipe as plain values, with every default and without secrets in addresses."""
        return redacted_tree(dataclasses.asdict(self))


def build_recipe(tree: dict[str, Any], where: str) -> Recipe:
    """Build a recipe from plain values, which must include `model`. Raises RecipeError with the place of the first mistake."""
    recipe = _build(Recipe, tree, where)
    for kind, entry in dataclasses.asdict(recipe.model).items():
        if kind == "video" and entry is None:
            continue
        try:
            if kind == "grounding":
                box_form(entry)
            else:
                check_name(kind, entry)
        except RecipeError as error:
            raise RecipeError(f"{where}, model, {error}") from None
    if (recipe.steps is None) == (recipe.epochs is None):
        raise RecipeError(f"{where}: set either `steps` or `epochs`")
    if isinstance(recipe.data, dict) and recipe.epochs is not None:
        raise RecipeError(f"{where}: a mixture has no end, so `epochs` cannot be used. Set `steps`")
    if not any(recipe.parts.get(name, Part()).is_trained for name in ("encoder", "abstractor", "fusion", "language")):
        raise RecipeError(f"{where}, parts: every part is frozen, so nothing would be trained")
    for name in recipe.parts:
        if name not in ("encoder", "abstractor", "fusion", "language"):
            raise RecipeError(
                f"{where}, parts: a model has no part '{name}'. The parts are encoder, abstractor, fusion and language"
            )
    return recipe


def build_parts(tree: Any, where: str) -> dict[str, Part]:
    """Build a recipe's `parts` from plain values. Raises RecipeError with the place of the first mistake."""
    parts: dict[str, Part] = _inner(dict[str, Part], tree, where)
    return parts


def _build(cls: type, tree: Any, where: str) -> Any:
    """Build a dataclass whose fields may be dataclasses.

    Inner dataclasses are built first, so that an error in an inner dataclass names its place.
    """
    if not isinstance(tree, dict):
        raise RecipeError(f"{where}: the parameters of {cls.__name__} must be a mapping, not {shown(tree)}")
    values = dict(tree)
    for name, kind in typing.get_type_hints(cls).items():
        if name in values:
            values[name] = _inner(kind, values[name], f"{where}, {name}")
    return catalog.build(cls, values, where)


def _inner(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast(type, kind), value, where)
    if isinstance(kind, types.UnionType):
        inner = next((k for k in typing.get_args(kind) if dataclasses.is_dataclass(k)), None)
        return _build(typing.cast(type, inner), value, where) if inner and isinstance(value, dict) else value
    if typing.get_origin(kind) is list and dataclasses.is_dataclass(typing.get_args(kind)[0]) and isinstance(value, list):
        return [_build(typing.get_args(kind)[0], entry, f"{where}, {number}") for number, entry in enumerate(value, 1)]
    if typing.get_origin(kind) is dict and dataclasses.is_dataclass(typing.get_args(kind)[1]) and isinstance(value, dict):
        return {name: _build(typing.get_args(kind)[1], entry or {}, f"{where}, {name}") for name, entry in value.items()}
    return value
