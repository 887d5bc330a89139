"""Open the data of a run: the stream of a dataset or a mixture, its prompter, and the feed of batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from vlmdata import stream
from vlmdata.count_line import CountLine
from vlmdata.loader.captions import Weights
from vlmdata.loader.packed import Packing
from vlmdata.loader.stream import ReadOptions
from vlmdata.redact import redacted
from vlmdata.step import RecipeError
from vlmdata_train.data.collate import write_media
from vlmdata_train.data.feed import Feed, SampleStream
from vlmdata_train.data.media_text import MediaText
from vlmdata_train.data.no_samples import check_used
from vlmdata_train.data.prompts import Prompter
from vlmdata_train.data.reading import Reading, Sample
from vlmdata_train.data.sample_positions import FeedPosition, SamplePosition, redistribute
from vlmdata_train.distributed import Ranks, all_gather_objects, barrier
from vlmdata_train.model.model import VisionLanguageModel
from vlmdata_train.recipe import Recipe


def make_feeds(recipe: Recipe, model: VisionLanguageModel, ranks: Ranks) -> tuple[Feed, Feed | None]:
    """Return the feed to train on, and the feed to evaluate on. The second is None if nothing is held out.

    Every rank must call this function. The first rank of each machine measures the samples' lengths. The other ranks read them
    from the machine's cache.
    """
    if ranks.is_first_here:
        feeds = _make_feeds(recipe, model, ranks)
    barrier(ranks)
    return feeds if ranks.is_first_here else _make_feeds(recipe, model, ranks)


def _make_feeds(recipe: Recipe, model: VisionLanguageModel, ranks: Ranks) -> tuple[Feed, Feed | None]:
    held = recipe.held_out
    rounds = None if recipe.epochs is None else math.ceil(recipe.epochs)
    of_data = partial(feed_of, recipe, model, recipe.data, ranks, held_out=held.fraction, captions=recipe.captions)
    train = of_data(seed=recipe.seed, epochs=rounds, augment=recipe.augment)
    if held.path is not None:
        return train, feed_of(recipe, model, held.path, ranks, where="held_out.path")
    if held.fraction > 0:
        return train, of_data(wants_held_out=True)
    return train, None


def feed_of(
    recipe: Recipe, model: VisionLanguageModel, data: str | dict[str, float], ranks: Ranks, *, seed: int = 0,
    epochs: int | None = 1, held_out: float = 0.0, wants_held_out: bool = False, captions: Weights | None = None,
    augment: str | None = None, where: str = "data",
) -> Feed:  # fmt: skip
    """Measure the lengths of the samples in the data, and return the feed that builds the recipe's batches from them.

    With `epochs` None the data repeats forever. `held_out` is the held-out fraction of the samples. The feed reads the
    held-out samples if `wants_held_out` is True, and the other samples if it is False. `captions` are weights, as in the
    recipe, and so is `augment`. Raises RecipeError, which names the recipe's key `where`, if the data cannot be read or has no
    usable sample.
    """
    b = recipe.batches
    longest = min(b.sample_tokens, b.tokens) if b.pack else b.sample_tokens
    prompter = prompter_of(model, trusted=recipe.trusted_tokens, last_only=recipe.loss == "last")
    reading = Reading(prompter, model.plan, recipe.stage, longest, held_out, wants_held_out, captions, augment)
    packing = Packing(
        b.tokens if b.pack else longest, reading, reading.cache_key(), overlong="drop", window=b.window, workers=b.workers,
        single=not b.pack, captions=captions,
    )  # fmt: skip
    with CountLine(redacted(f"measuring {data}"), active=ranks.is_first) as line:
        measuring = replace(packing, report=line.show)
        opened = open_stream(data, seed, ranks.rank, ranks.world, epochs, measuring, where=where)
    check_used(opened.plan, data, reading, where)
    state = opened.state_dict()
    return Feed(
        lambda rank, world: open_stream(data, seed, rank, world, epochs, packing), reading,
        FeedPosition(SamplePosition(0, ranks.rank, ranks.world)), b.tokens if b.pack else None, b.samples, b.workers, b.ahead,
        (state["index"], state["order"]), opened.plan,
    )  # fmt: skip


def prompter_of(model: VisionLanguageModel, *, trusted: Collection[str] = (), last_only: bool = False) -> Prompter:
    """Return the prompter of a model.

    Raises RecipeError if `trusted` has an unknown token, or a token that no text may contain.
    """
    media = MediaText(
        partial(write_media, model.plan), model.image_token_id, model.video_token_id, model.plan.writing.placeholder,
        bos_after_images=model.plan.writing.bos == "after_images", bos_token=model.plan.writing.bos_token,
        question_ids=model.question_ids,
        literals=[name for name in model.plan.writing.tokens() if name.strip()],
    )  # fmt: skip
    box_tokens = model.plan.grounding.tokens if model.plan.grounding else ()
    return Prompter(model.tokenizer, media, trusted=trusted, last_only=last_only, box_tokens=box_tokens)


def open_stream(
    data: str | dict[str, float], seed: int, rank: int, world: int, epochs: int | None, packing: Packing | None = None,
    *, where: str = "data",
) -> SampleStream:  # fmt: skip
    """Return the stream of a rank's share of the data. With `epochs` None the stream never ends.

    `data` is one dataset, or a mixture as a dict from datasets to their shares. A share is a share of the samples, even if the
    stream yields packs. Raises RecipeError, which names the recipe's key `where`, if the data cannot be read.
    """
    try:
        return stream(
            data, seed=seed, epochs=epochs, rank=rank, world_size=world, packing=packing,
            reading=ReadOptions(on_error="skip"), torch=False,
        )  # fmt: skip
    except RecipeError:  # this ValueError already names its key; the model and the recipe raise it while lengths are measured
        raise
    except (OSError, ValueError) as error:
        raise RecipeError(f"{where}: {error}") from None


def some_samples(reading: Reading, data: str | dict[str, float], count: int) -> Iterator[Sample]:
    """Yield the first `count` samples that a reading can use, in the order of the stream of `data`."""
    samples = open_stream(data, 0, 0, 1, epochs=1)
    return itertools.islice((sample for sample in samples if reading.can_use(sample)), count)


def held_out_questions(recipe: Recipe, held_feed: Feed | None) -> list[Sample]:
    """Return the held-out samples whose answers are generated at each evaluation. Without a held-out feed the list is empty."""
    if held_feed is None:
        return []
    return list(some_samples(held_feed.reading, recipe.held_out.path or recipe.data, recipe.held_out.answers))


def gather_positions(position: FeedPosition, ranks: Ranks) -> list[dict[str, Any]]:
    """Return every rank's position in the feed, for a checkpoint. Every rank must call this function."""
    return all_gather_objects(position.to_json(), ranks)


def check_same_data(recipe: Recipe, feed: Feed, names: list[str]) -> None:
    """Raise RecipeError if the samples or their order have changed since the run was saved.

    `names` are the saved run's hashes of the samples and of their order; see `Feed.names`.
    """
    if feed.names[0] != names[0]:
        raise RecipeError(
            f"data: {recipe.data} has changed since the run in {recipe.out} was saved, so the run cannot resume. Restore"
            " the data, or choose a different `out` and set `start` to the checkpoint."
        )
    if feed.names[1] != names[1]:
        raise RecipeError(
            f"held_out.fraction: the samples of the run in {recipe.out} were packed with a different value, or by a different"
            " version of vlmdata. Use the same value and version, or choose another `out` and set `start` to the checkpoint."
        )


def resume_feed(feed: Feed, states: list[dict[str, Any]], ranks: Ranks) -> None:
    """Set the feed to the position at which the saved run stopped.

    `states` are the positions of the saved run's ranks, from `gather_positions`. That run may have had a different number of
    ranks.
    """
    positions = [FeedPosition.from_json(state) for state in states]
    feed.position = redistribute(positions, ranks.world, units=feed.units)[ranks.rank]
