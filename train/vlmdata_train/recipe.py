"""What a training recipe says: a model, the data, and how each part of the model is trained."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from vlmdata import catalog
from vlmdata.redact import redacted_tree
from vlmdata.step import RecipeError
from vlmdata_train.model.model_recipe import ModelRecipe, Part, check_range
from vlmdata_train.model.parts import check_name


@dataclass(frozen=True, kw_only=True)
class TinyTokenizer:
    """A byte-level BPE learned from the data's own texts at the start of the run, with a chat template."""

    vocabulary: int = 2048
    samples: int = 5000  # whose texts it is learned from

    def __post_init__(self) -> None:
        check_range(self, "vocabulary", least=264)  # bytes and special tokens
        check_range(self, "samples", least=1)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How samples become rows of tokens."""

    tokens: int = 8192  # of a packed row
    sample_tokens: int = 2048  # at most of a sample; a longer one is cut, never inside an image
    pack: bool = True  # several samples in one row, who cannot see each other; otherwise one each, padded to the longest
    samples: int = 8  # of one forward pass, where they are not packed
    accumulate: int = 1  # forward passes to one optimizer step, on each rank
    window: int = 1 << 16  # samples that packing chooses from at a time: more fill rows better, fewer mix lengths better
    workers: int = 2  # threads that decode and tokenize, on each rank; processes that measure lengths at the start
    ahead: int = 4  # forward passes prepared in advance

    def __post_init__(self) -> None:
        check_range(self, "tokens sample_tokens samples accumulate window workers ahead", least=1)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """AdamW and its schedule."""

    weight_decay: float = 0.0  # LLaVA-1.5; matrices only, never norms and biases
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    compact: bool = False  # the first moment in bf16, with bf16 weights: 2 bytes a weight less
    clip: float = 1.0  # the largest norm of all gradients together; 0: any
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.03  # LLaVA-1.5: this share of the run

    def __post_init__(self) -> None:
        check_range(self, "weight_decay eps clip", least=0)
        check_range(self, "beta1 beta2 warmup", least=0, below=1)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How the same mathematics is computed. `bf16` keeps weights in bf16 with their lost bits beside, for the optimizer."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "autocast", "bf16"] = "fp32"
    threads: int | None = None  # of torch on a CPU; without it torch's choice, which is slow where other programs run
    compile: bool = False  # each block of the language model and of the encoder
    recompute: Literal["auto", "none", "all"] = "auto"  # in the backward pass; auto: as a GPU's memory asks
    parallel: Literal["ddp", "fsdp"] = "ddp"
    loss_chunk: int = 2048  # answer tokens whose logits exist at a time

    def __post_init__(self) -> None:
        check_range(self, "threads loss_chunk", least=1)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When the run is saved, and which checkpoints stay."""

    every: int = 500  # steps, and at the end; 0: never (to measure speed)
    keep: int = 2  # the newest
    keep_best: bool = True  # by held-out loss

    def __post_init__(self) -> None:
        check_range(self, "every", least=0)
        check_range(self, "keep", least=1)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What is never trained on: a share of the samples by their key, or another dataset."""

    fraction: float = 0.0
    path: str | None = None
    every: int = 200  # steps
    samples: int = 256  # at most, for the loss
    answers: int = 0  # samples whose answer is generated and compared at each evaluation
    answer_tokens: int = 32  # at most, in a generated answer

    def __post_init__(self) -> None:
        check_range(self, "fraction", least=0, below=1)
        check_range(self, "every samples answer_tokens", least=1)
        check_range(self, "answers", least=0)


@dataclass(frozen=True, kw_only=True)
class Logs:
    """What is logged, and what happens when the loss breaks."""

    every: int = 10  # steps
    tensorboard: bool = True
    wandb: str | None = None  # a project's name
    on_nan: Literal["stop", "skip"] = "stop"
    on_spike: Literal["stop", "skip", "tell"] = "tell"
    spike: float = 6.0  # standard deviations of the last 100 losses above their mean

    def __post_init__(self) -> None:
        check_range(self, "every", least=1)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run of the trainer: every choice, no logic. Without `model` it is the start's, whose tokenizer is kept too."""

    stage: Literal["align", "instruct"]
    model: ModelRecipe
    data: str | dict[str, float]  # a dataset, or datasets with the share of samples drawn from each
    out: str
    tokenizer: TinyTokenizer | None = None  # learn one from the data; without it the language model's own
    chat_template: str | None = None  # Jinja, or a file of it, in place of the tokenizer's own
    trusted_tokens: list[str] = field(default_factory=list)  # that the data may write: of boxes, tools, reasoning
    loss: Literal["all", "last"] = "all"  # answers of a conversation that have a loss
    start: str | None = None  # what this run begins with: a checkpoint, or a model in LLaVA's form (a folder, a hub name)
    parts: dict[str, Part] = field(default_factory=dict)
    lr: float = 1e-3
    steps: int | None = None  # optimizer steps, or
    epochs: float | None = None  # rounds over the data
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
        if self.epochs is not None and not 0 < self.epochs < float("inf"):
            raise ValueError(f"epochs is more than 0, not {self.epochs}")

    def describe(self) -> dict[str, Any]:
        """Return the whole recipe as plain values, every default written out and the secrets of addresses left out."""
        return redacted_tree(dataclasses.asdict(self))


def build_recipe(tree: dict[str, Any], where: str) -> Recipe:
    """Build a recipe from plain values that name a model. Raises RecipeError with the place of the first mistake."""
    recipe = _build(Recipe, tree, where)
    for kind, entry in dataclasses.asdict(recipe.model).items():
        try:
            check_name(kind, entry)
        except RecipeError as error:
            raise RecipeError(f"{where}, model, {error}") from None
    if (recipe.steps is None) == (recipe.epochs is None):
        raise RecipeError(f"{where}: say either `steps` or `epochs`")
    if isinstance(recipe.data, dict) and recipe.epochs is not None:
        raise RecipeError(f"{where}: a mixture has no end, so `epochs` means nothing: say `steps`")
    if not any(not recipe.parts.get(name, Part()).frozen for name in ("encoder", "abstractor", "fusion", "language")):
        raise RecipeError(f"{where}, parts: every part is frozen, nothing would be trained")
    for name, part in recipe.parts.items():
        if name not in ("encoder", "abstractor", "fusion", "language"):
            raise RecipeError(f"{where}, parts: a model has no part '{name}'. It has encoder, abstractor, fusion, language")
        if part.frozen and (part.lora or part.lr is not None):
            raise RecipeError(f"{where}, parts, {name}: a frozen part has neither `lr` nor `lora`")
    return recipe


def _build(cls: type, tree: Any, where: str) -> Any:
    """Make a dataclass whose fields may be dataclasses: the inner ones first, so that each mistake names its own place."""
    if not isinstance(tree, dict):
        raise RecipeError(f"{where}: expected a mapping of {cls.__name__}'s parameters, not {tree!r}")
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
    if typing.get_origin(kind) is dict and dataclasses.is_dataclass(typing.get_args(kind)[1]) and isinstance(value, dict):
        return {name: _build(typing.get_args(kind)[1], entry or {}, f"{where}, {name}") for name, entry in value.items()}
    return value
