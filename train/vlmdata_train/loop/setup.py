"""Set up a run before its first step: the checkpoint to resume, the seed, the tokenizer and the model."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vlmdata.sizes import counted
from vlmdata.step import RecipeError
from vlmdata_train.convert.checkpoint import load_weights
from vlmdata_train.convert.checkpoint_folder import is_checkpoint, latest, model_of
from vlmdata_train.convert.restore import start_weights
from vlmdata_train.data.feed import SampleStream
from vlmdata_train.data.open_feed import open_stream
from vlmdata_train.data.read_document import read_document
from vlmdata_train.data.reading import is_held_out
from vlmdata_train.data.tiny_tokenizer import train_tokenizer
from vlmdata_train.distributed import Ranks, barrier
from vlmdata_train.model.freezing import apply_parts, check_gates
from vlmdata_train.model.model import VisionLanguageModel, build_model
from vlmdata_train.model.model_recipe import ModelRecipe, Part, Rule, with_stored_tokenizers, with_template, with_tokenizer
from vlmdata_train.model.placeholders import allocate, placeholders
from vlmdata_train.model.weight_places import weight_places
from vlmdata_train.model.weight_rules import RuledWeight, ruled_weights, selected
from vlmdata_train.recipe import Recipe, build_parts

# Keys that a resumed run may change, because they do not affect the steps already done.
MAY_CHANGE = ("steps", "epochs", "out", "speed", "checkpoints", "held_out", "logs")

# Values of the keys that are missing in recipes of earlier versions.
DEFAULTS_BEFORE: dict[str, Any] = {
    "chat_template": None,
    "trusted_tokens": [],
    "loss": "all",
    "captions": None,
    "augment": None,
}


def resumable(recipe: Recipe, checkpoints: Path) -> Path | None:
    """Return the checkpoint to resume from, or None if there is none.

    Raises RecipeError if the checkpoint belongs to a run of a different recipe.
    """
    if recipe.start is not None:
        model_of(recipe.start)
    found = latest(checkpoints)
    if found is None:
        return None
    now = json.loads(json.dumps(recipe.describe()))
    before = DEFAULTS_BEFORE | json.loads((found / "recipe.json").read_text())
    # with the defaults of parts that are missing; a run of an earlier version had no boxes, whose form a start now gives
    before["model"] = dataclasses.asdict(ModelRecipe(**{"grounding": now["model"]["grounding"], **before["model"]}))
    before["parts"] = _with_new_keys(before["parts"], str(found / "recipe.json"))
    changed = [name for name in now if name not in MAY_CHANGE and now[name] != before.get(name)]
    if changed:
        raise RecipeError(
            f"{recipe.out} holds a run with a different `{changed[0]}`. Choose a different `out`, or remove this folder."
        )
    return found


def _with_new_keys(parts: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the `parts` of a saved recipe with the defaults of keys that recipes of earlier versions lack."""
    return {name: dataclasses.asdict(part) for name, part in build_parts(parts, f"{where}, parts").items()}


def seed_everything(seed: int, ranks: Ranks) -> None:
    """Seed torch with the same seed on every rank, because every rank initializes the weights."""
    torch.manual_seed(seed)
    if ranks.device.type == "cuda":
        torch.cuda.manual_seed(seed)


def model_parts(recipe: Recipe, out: Path, ranks: Ranks) -> ModelRecipe:
    """Return the model's parts, with their tokenizer and chat template.

    A run that starts from a checkpoint uses the checkpoint's tokenizer. Any other run uses a tiny tokenizer if the recipe sets
    `tokenizer`, and the language model's tokenizer if not. A new run trains its tiny tokenizer here.
    """
    return with_template(_with_tokenizer(recipe, out, ranks), recipe.chat_template)


def _with_tokenizer(recipe: Recipe, out: Path, ranks: Ranks) -> ModelRecipe:
    if recipe.start is not None and is_checkpoint(recipe.start):  # the weights fit only the tokenizers of the checkpoint
        return with_stored_tokenizers(recipe.model, Path(recipe.start))
    choice = recipe.tokenizer
    if choice is not None:
        folder = out / "tokenizer"
        if ranks.is_first and (latest(out / "checkpoints") is None or not (folder / "tokenizer.json").exists()):
            texts = _texts(open_stream(recipe.data, recipe.seed, 0, 1, epochs=1), recipe, choice.samples)
            train_tokenizer(texts, choice.vocabulary, folder)
        barrier(ranks)
        return with_tokenizer(recipe.model, str(folder))
    return recipe.model


def _texts(samples: SampleStream, recipe: Recipe, count: int) -> Iterator[str]:
    """Yield the texts of the first `count` samples, without samples that are held out or cannot be read."""
    for sample in itertools.islice(samples, count):
        if is_held_out(sample["__key__"], recipe.held_out.fraction):
            continue
        try:
            positions = read_document(sample, recipe.captions).positions
        except (KeyError, TypeError, ValueError):  # the sample is counted when the feed reads it
            continue
        yield from (position for position in positions if isinstance(position, str))


def make_model(
    recipe: Recipe, parts: ModelRecipe, ranks: Ranks, resumed: Path | None = None
) -> tuple[VisionLanguageModel, Callable[[], None]]:
    """Return the model in the recipe's precision, with its parts frozen or trained, and a function that reads its weights.

    If the weights come from `recipe.start` or from `resumed`, the checkpoint of a run that goes on, they are placeholders until
    the function is called. FSDP may shard the model before. The function moves the model to the device.

    Raises RecipeError if the parts do not fit together, or if no weight is trained. The function raises RecipeError for weights
    that do not fit the model.
    """
    is_read = recipe.start is not None or resumed is not None
    try:
        with ranks.device if ranks.device.type == "cuda" else nullcontext(), placeholders() if is_read else nullcontext():
            model = build_model(parts)
    except (OSError, ValueError) as error:  # from a part or transformers: the parts do not fit together, or a name is unknown
        raise RecipeError(f"model: {' '.join(str(error).split())}") from None
    except ZeroDivisionError:  # from transformers
        raise RecipeError("model: a size in a part's configuration, such as its number of heads, is 0") from None
    weights = None if resumed or recipe.start is None else start_weights(model, recipe.start)
    if recipe.speed.precision == "bf16":
        model.to(torch.bfloat16)
    with _parts_errors():
        apply_parts(model.parts(), recipe.parts)
    if not any(p.requires_grad for p in model.parameters()):
        raise RecipeError("parts: every part that has weights is frozen, so nothing would be trained. Train at least one part.")
    if resumed is not None:
        weights = partial(load_weights, resumed, weight_places(model), {})

    def read() -> None:
        allocate(model, ranks.device)
        if weights is not None:
            weights()
        with _parts_errors():
            check_gates(model.parts(), recipe.parts)

    return model, read


@contextmanager
def _parts_errors() -> Iterator[None]:
    """Turn a ValueError about the recipe's `parts` into a RecipeError."""
    try:
        yield
    except ValueError as error:
        raise RecipeError(f"parts, {' '.join(str(error).split())}") from None


def summary(recipe: Recipe, model: VisionLanguageModel, ranks: Ranks) -> str:
    """Return text that shows the data, the device, and the weights of each part and of each rule, for the terminal."""
    lines = [f"{recipe.stage} on {recipe.data}, {counted(ranks.world, 'rank')}, {ranks.device.type}, {recipe.speed.precision}"]
    for name, module in model.parts().items():
        part, weights = recipe.parts.get(name, Part()), ruled_weights(module, [])
        if not weights:
            continue
        is_trained = any(one.weight.requires_grad for one in weights) and not part.frozen
        rate = recipe.lr if part.lr is None else part.lr
        how = f"lr {rate:g}" + (", LoRA" if part.lora else "") if is_trained else "frozen"
        lines.append(f"  {name:<10} {_counts(weights)}, {how}")
        lines += [f"  {'':<10} {_counts(selected(rule.weights, weights))}, {_text(rule, rate)}" for rule in part.rules]
    return "\n".join(lines)


def _counts(weights: list[RuledWeight]) -> str:
    """Return how many weights there are and how many of them are trained, in millions."""
    trained = sum(one.weight.numel() for one in weights if one.weight.requires_grad)
    return f"{sum(one.weight.numel() for one in weights) / 1e6:10.3f} M weights, {trained / 1e6:10.3f} M trained"


def _text(rule: Rule, rate: float) -> str:
    """Return a rule as text. `rate` is the learning rate of its part."""
    if rule.frozen:
        return f"{rule.label}: frozen"
    is_shown = rule.lr is not None or rule.frozen is False
    how = [f"lr {rate if rule.lr is None else rule.lr:g}"] if is_shown else []
    how += [] if rule.weight_decay is None else [f"weight decay {rule.weight_decay:g}"]
    return f"{rule.label}: {', '.join(how)}"
