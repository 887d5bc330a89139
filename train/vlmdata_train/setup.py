"""What a run puts together before its first step."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlmdata import stream
from vlmdata.loader.packed import Packing
from vlmdata.redact import redacted
from vlmdata.step import RecipeError
from vlmdata_train.adamw import local
from vlmdata_train.checkpoint_folder import is_checkpoint, latest, model_of
from vlmdata_train.collate import tokens_of_picture
from vlmdata_train.count_line import CountLine
from vlmdata_train.data import Feed, Stream
from vlmdata_train.distributed import Ranks, gathered, meet
from vlmdata_train.documents import read_document
from vlmdata_train.freezing import apply_parts, check_gates
from vlmdata_train.log import Meter
from vlmdata_train.model import VisionLanguageModel, build_model
from vlmdata_train.model_recipe import ModelRecipe, Part, with_template, with_tokenizer
from vlmdata_train.no_samples import check_used
from vlmdata_train.places import Place, Position, redistribute
from vlmdata_train.prompts import Prompter
from vlmdata_train.reading import Reading, Sample, is_held_out
from vlmdata_train.recipe import Recipe
from vlmdata_train.restore import fill
from vlmdata_train.step import Micro
from vlmdata_train.tiny_tokenizer import train_tokenizer
from vlmdata_train.tokens import image_token_id

# What may differ between a run and the one it goes on from: nothing that changes the weights already made.
MAY_CHANGE = ("steps", "epochs", "out", "speed", "checkpoints", "held_out", "logs")

# What recipes of earlier versions do not say, and what they meant.
SINCE: dict[str, Any] = {"chat_template": None, "trusted_tokens": [], "loss": "all"}


def resumable(recipe: Recipe, checkpoints: Path) -> Path | None:
    """Return the checkpoint to go on from. RecipeError: it is of a run with another recipe."""
    if recipe.start is not None:
        model_of(recipe.start)
    found = latest(checkpoints)
    if found is None:
        return None
    now = json.loads(json.dumps(recipe.describe()))
    before = SINCE | json.loads((found / "recipe.json").read_text())
    changed = [name for name in now if name not in MAY_CHANGE and now[name] != before.get(name)]
    if changed:
        raise RecipeError(f"{recipe.out} holds a run with another `{changed[0]}`: name another `out`, or remove it")
    return found


def seed_everything(seed: int, ranks: Ranks) -> None:
    """Seed torch. The same on every rank, for the weights are drawn on every rank."""
    torch.manual_seed(seed)
    if ranks.device.type == "cuda":
        torch.cuda.manual_seed(seed)


def model_parts(recipe: Recipe, out: Path, ranks: Ranks) -> ModelRecipe:
    """Return the model's parts, with the tokenizer put in: a given one, the start's, or a tiny one learned now, once."""
    return with_template(_with_its_tokenizer(recipe, out, ranks), recipe.chat_template)


def _with_its_tokenizer(recipe: Recipe, out: Path, ranks: Ranks) -> ModelRecipe:
    if recipe.start is not None and is_checkpoint(recipe.start):  # its weights mean nothing with another one
        return with_tokenizer(recipe.model, str(Path(recipe.start) / "tokenizer"))
    choice = recipe.tokenizer
    if choice is not None:
        folder = out / "tokenizer"
        if ranks.is_first and (latest(out / "checkpoints") is None or not (folder / "tokenizer.json").exists()):
            texts = _texts(open_stream(recipe.data, recipe.seed, 0, 1, epochs=1), recipe, choice.samples)
            train_tokenizer(texts, choice.vocabulary, folder)
        meet(ranks)
        return with_tokenizer(recipe.model, str(folder))
    return recipe.model


def _texts(samples: Stream, recipe: Recipe, count: int) -> Iterator[str]:
    for sample in itertools.islice(samples, count):
        if is_held_out(sample["__key__"], recipe.held_out.fraction):
            continue
        try:
            positions = read_document(sample).positions
        except (KeyError, TypeError, ValueError):  # counted when the sample's turn comes
            continue
        yield from (position for position in positions if isinstance(position, str))


def make_model(recipe: Recipe, parts: ModelRecipe, ranks: Ranks) -> VisionLanguageModel:
    """Build the model on the device, in its precision, with the weights to start from, frozen as the table says.

    RecipeError: its parts do not go together.
    """
    try:
        with ranks.device if ranks.device.type == "cuda" else contextlib.nullcontext():
            model = build_model(parts)
    except (OSError, ValueError) as error:  # of a part, or of transformers: parts that do not go together, an unknown name
        raise RecipeError(f"model: {' '.join(str(error).split())}") from None
    if recipe.start is not None:
        fill(model, recipe.start)
    if recipe.speed.precision == "bf16":
        model.to(torch.bfloat16)
    try:
        apply_parts(model.parts(), recipe.parts)
        check_gates(model.parts(), recipe.parts)
    except ValueError as error:
        raise RecipeError(f"parts, {' '.join(str(error).split())}") from None
    if not any(p.requires_grad for p in model.parameters()):
        raise RecipeError("parts: every part that has weights is frozen, nothing would be trained")
    return model.to(ranks.device)


def make_feeds(recipe: Recipe, model: VisionLanguageModel, ranks: Ranks) -> tuple[Feed, Feed | None]:
    """Return the feed to train on and, if anything is held out, the one to evaluate on. Every rank must call it.

    The first rank of each machine measures the samples' lengths, the others read what it wrote into the machine's cache.
    """
    if ranks.is_first_here:
        made = _make_feeds(recipe, model, ranks)
    meet(ranks)
    return made if ranks.is_first_here else _make_feeds(recipe, model, ranks)


def _make_feeds(recipe: Recipe, model: VisionLanguageModel, ranks: Ranks) -> tuple[Feed, Feed | None]:
    held = recipe.held_out
    rounds = None if recipe.epochs is None else math.ceil(recipe.epochs)
    train = feed_of(recipe, model, recipe.data, ranks, seed=recipe.seed, epochs=rounds, held_out=held.fraction)
    if held.path is not None:
        return train, feed_of(recipe, model, held.path, ranks, where="held_out.path")
    if held.fraction > 0:
        return train, feed_of(recipe, model, recipe.data, ranks, held_out=held.fraction, wants_held_out=True)
    return train, None


def feed_of(
    recipe: Recipe, model: VisionLanguageModel, data: str | dict[str, float], ranks: Ranks, *, seed: int = 0,
    epochs: int | None = 1, held_out: float = 0.0, wants_held_out: bool = False, where: str = "data",
) -> Feed:  # fmt: skip
    """Return the feed of a dataset for a model, in the recipe's shape. It measures the samples' lengths first.

    RecipeError, with `where` as its place: the data cannot be read, or hold no sample to use.
    """
    b = recipe.batches
    longest = min(b.sample_tokens, b.tokens) if b.pack else b.sample_tokens
    prompter = prompter_of(model, trusted=recipe.trusted_tokens, last_only=recipe.loss == "last")
    reading = Reading(prompter, model.plan, recipe.stage, longest, held_out, wants_held_out)
    packing = Packing(
        b.tokens if b.pack else longest, reading, reading.name(), overlong="drop", window=b.window, workers=b.workers,
        single=not b.pack,
    )  # fmt: skip
    with CountLine(redacted(f"measuring {data}"), active=ranks.is_first) as line:
        measuring = replace(packing, report=line.show)
        opened = open_stream(data, seed, ranks.rank, ranks.world, epochs, measuring, where=where)
    check_used(opened.plan, data, reading, where)
    state = opened.state_dict()
    return Feed(
        lambda rank, world: open_stream(data, seed, rank, world, epochs, packing), reading,
        Position(Place(0, ranks.rank, ranks.world)), b.tokens if b.pack else None, b.samples, b.workers, b.ahead,
        (state["index"], state["order"]), opened.plan,
    )  # fmt: skip


def prompter_of(model: VisionLanguageModel, *, trusted: Collection[str] = (), last_only: bool = False) -> Prompter:
    """Return what makes prompts for a model. RecipeError: a token that cannot be trusted."""
    tokens_of = partial(tokens_of_picture, model.plan)
    return Prompter(model.tokenizer, image_token_id(model.tokenizer), tokens_of, trusted=trusted, last_only=last_only)


def open_stream(
    data: str | dict[str, float], seed: int, rank: int, world: int, epochs: int | None, packing: Packing | None = None,
    *, where: str = "data",
) -> Stream:  # fmt: skip
    """Open a rank's share of a dataset or a mixture; without `epochs` it never ends. RecipeError: it cannot be read.

    The shares of a mixture are shares of the samples, packed or not.
    """
    try:
        return stream(data, seed=seed, epochs=epochs, rank=rank, world=world, pack=packing, on_error="skip", torch=False)
    except RecipeError:  # of the model or the recipe, met while lengths are measured
        raise
    except (OSError, ValueError) as error:
        raise RecipeError(f"{where}: {error}") from None


def some_samples(reading: Reading, data: str | dict[str, float], count: int) -> Iterator[Sample]:
    """Give the first `count` samples of a dataset that a reading can use, in the order of a stream."""
    samples = open_stream(data, 0, 0, 1, epochs=1)
    return itertools.islice((sample for sample in samples if reading.can_use(sample)), count)


def asked(recipe: Recipe, held_feed: Feed | None) -> list[Sample]:
    """Return the held-out samples whose answers are generated at each evaluation."""
    if held_feed is None:
        return []
    return list(some_samples(held_feed.reading, recipe.held_out.path or recipe.data, recipe.held_out.answers))


def feed_state(position: Position, ranks: Ranks) -> list[dict[str, Any]]:
    """Return what a checkpoint keeps of the feed: every rank's position. Every rank must call it."""
    return gathered(position.to_json(), ranks)


def check_data(recipe: Recipe, feed: Feed, names: list[str]) -> None:
    """Raise RecipeError where the samples, or their order, are not those that the saved run was given: `names` are its own."""
    if feed.names[0] != names[0]:
        raise RecipeError(
            f"data: {recipe.data} has changed since the run in {recipe.out} was saved, so what it was given is not known:"
            " restore it, or name another `out` and begin from the checkpoint with `start`"
        )
    if feed.names[1] != names[1]:
        raise RecipeError(
            f"held_out.fraction: the samples of the run in {recipe.out} were packed by another one, or by another version of"
            " the program: go on with that, or name another `out` and begin from the checkpoint with `start`"
        )


def place_feed(feed: Feed, states: list[dict[str, Any]], ranks: Ranks) -> None:
    """Set the feed to go on where the saved run stood, which may have had another number of ranks."""
    positions = [Position.from_json(state) for state in states]
    feed.position = redistribute(positions, ranks.world, units=feed.units)[ranks.rank]


def optimizer_bytes(weights: list[nn.Parameter], compact: bool) -> float:
    """Return what AdamW's state will take on this rank: two fp32 moments, and the lower half of a bf16 weight."""
    return sum(local(p).numel() * (8 if p.dtype == torch.float32 or compact else 10) for p in weights)


def count(meter: Meter, micros: list[Micro], sums: list[float], costs: dict[str, float], model: VisionLanguageModel) -> None:
    """Add one step to the meter; `sums` are the samples' summed losses, `costs` what `flops_per_token` gives.

    What passes the encoder are the patches of every tile as large as it is, with the class and register tokens that are given
    out; the abstractor, the tokens that it makes of them; the language model and the fusion, the real tokens of the text with
    its images. All of it is known on the host, so that no device is waited for.
    """
    rest = iter(sums)
    meter.steps += 1
    for micro in micros:
        batch = micro.batch
        meter.tokens += micro.tokens
        meter.places += micro.places_total
        meter.samples += len(micro.answers)
        meter.images += len(batch.tile_counts)
        grids = [model.plan.facts.grid(tile.shape[-2], tile.shape[-1]) for tile in batch.pixels]
        meter.flops += micro.tokens * (costs["language"] + costs["fusion"])
        meter.flops += sum(grid.tokens for grid in grids) * costs["encoder"]
        meter.flops += sum(model.plan.abstractor.grid_of(grid).tokens for grid in grids) * costs["abstractor"]
        if "fusion_features" in costs:
            features = sum(model.plan.features_of(width, height) for height, width in batch.image_sizes.tolist())
            meter.flops += features * costs["fusion_features"]
        for source, answers in zip(batch.sources, micro.answers, strict=True):
            meter.add_losses({source: (next(rest), answers)})


def summary(recipe: Recipe, model: VisionLanguageModel, ranks: Ranks) -> str:
    """Say in a few lines what will be trained."""
    lines = [f"{recipe.stage} on {recipe.data}, {ranks.world} rank(s), {ranks.device.type}, {recipe.speed.precision}"]
    for name, part in model.parts().items():
        weights = sum(p.numel() for p in part.parameters())
        trained = sum(p.numel() for p in part.parameters() if p.requires_grad)
        choice = recipe.parts.get(name, Part())
        rate = recipe.lr if choice.lr is None else choice.lr
        how = f"lr {rate:g}" + (", LoRA" if choice.lora else "") if trained else "frozen"
        if weights:
            lines.append(f"  {name:<10} {weights / 1e6:10.3f} M weights, {trained / 1e6:10.3f} M trained, {how}")
    return "\n".join(lines)


def line(step: int, recipe: Recipe, values: dict[str, Any]) -> str:
    """Return a step's line for the terminal."""
    of = f"/{recipe.steps}" if recipe.steps else ""
    use = f", {values['flops_use']:.0%} of peak" if "flops_use" in values else ""
    return (
        f"step {step}{of}: loss {values['loss']:.4f}, {values['tokens_per_s']:,.0f} tokens/s, "
        f"{values['samples_per_s']:.1f} samples/s, padding {values['padding']:.1%}, "
        f"waiting {values['data_wait']:.0%}, {values['memory_gib']:.2f} GiB{use}"
    )
