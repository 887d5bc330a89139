"""How good is it: loss on samples it never saw, and generated answers against the true ones."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from vlmdata_train.batch import Batch
from vlmdata_train.collate import Ready, build_batch
from vlmdata_train.data import Feed
from vlmdata_train.distributed import Ranks, gathered
from vlmdata_train.model import VisionLanguageModel
from vlmdata_train.prompts import read_document
from vlmdata_train.reading import Reading, Sample, source_of
from vlmdata_train.restore import restore
from vlmdata_train.setup import feed_of, some_samples
from vlmdata_train.step import Micro, Step, to_device


@dataclass(frozen=True)
class HeldOutLoss:
    """Cross-entropy per answer token, over all and per source."""

    loss: float
    loss_of: dict[str, float]
    samples: int


@torch.no_grad()
def held_out_loss(step_of: Step, feed: Feed, samples: int, ranks: Ranks, *, blank: bool = False) -> HeldOutLoss:
    """Return the loss on the first `samples` samples of a feed, each rank its share. `blank` makes every image grey.

    It is a fixed set, counted by answer token; every rank must call it, and none waits for another's batches.
    """
    was_training = step_of.training
    step_of.eval()
    sums: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    seen = 0
    for batch, _ in feed:
        micro = Micro.of(blanked(batch) if blank else batch, ranks.device)
        _, of_sample = step_of(micro)
        for source, loss, count in zip(batch.sources, of_sample.tolist(), micro.answers, strict=True):
            sums[source] += loss
            tokens[source] += count
        seen += len(batch.keys)
        if seen * ranks.world >= samples:
            break
    step_of.train(was_training)
    if isinstance(step_of, FSDPModule):
        step_of.reshard()  # its root stays whole after a forward pass without a backward one
    every = gathered([dict(sums), dict(tokens), seen], ranks)
    names = sorted({name for b in every for name in b[0]})
    loss = {name: sum(b[0].get(name, 0.0) for b in every) for name in names}
    counts = {name: sum(b[1].get(name, 0) for b in every) for name in names}
    losses = {name: loss[name] / max(counts[name], 1) for name in names}
    return HeldOutLoss(sum(loss.values()) / max(sum(counts.values()), 1), losses, sum(b[2] for b in every))


@dataclass(frozen=True)
class Score:
    """Generated answers against the true ones, of one source. Shares are in [0, 1]."""

    samples: int
    exact: float  # the same after normalising
    majority: float  # what always giving the commonest answer would reach


@dataclass(frozen=True)
class Answer:
    """One held-out question and what the model said."""

    source: str
    key: str
    truth: str
    given: str


@torch.no_grad()
def generate_answers(
    model: VisionLanguageModel, reading: Reading, samples: Iterable[Sample], *, max_new_tokens: int, blank: bool = False,
    at_once: int = 32,
) -> Iterator[Answer]:  # fmt: skip
    """Ask the model for the last answer of samples, or for their captions. `blank` makes every image grey."""
    was_training = model.training
    model.eval()
    asked: list[tuple[Ready, str]] = []
    try:
        for sample in samples:
            prompt, truth = reading.prompter.before_answer(read_document(sample))
            asked.append((Ready(prompt, source_of(sample), str(sample["__key__"])), truth))
            if len(asked) == at_once:
                yield from _answers(model, reading, asked, max_new_tokens, blank)
                asked = []
        if asked:
            yield from _answers(model, reading, asked, max_new_tokens, blank)
    finally:
        model.train(was_training)


def _answers(
    model: VisionLanguageModel, reading: Reading, asked: list[tuple[Ready, str]], max_new_tokens: int, blank: bool
) -> Iterator[Answer]:
    ready = [ready for ready, _ in asked]
    batch = build_batch(ready, reading.plan, reading.prompter.pad_id, packed_tokens=None, broken=Counter())
    batch = to_device(blanked(batch) if blank else batch, next(model.parameters()).device)
    tokens = model.generate(batch, max_new_tokens=max_new_tokens)
    for (one, truth), row in zip(asked, tokens, strict=True):
        yield Answer(one.source, one.key, truth, str(model.tokenizer.decode(row, skip_special_tokens=True)).strip())


def score(answers: list[Answer]) -> dict[str, Score]:
    """Compare answers with the truth, per source."""
    scores = {}
    for source in sorted({a.source for a in answers}):
        own = [(normalise(a.truth), normalise(a.given)) for a in answers if a.source == source]
        commonest = Counter(truth for truth, _ in own).most_common(1)[0][1]
        scores[source] = Score(len(own), sum(t == g for t, g in own) / len(own), commonest / len(own))
    return scores


def normalise(answer: str) -> str:
    """Take from an answer what VQA's evaluation takes: case, articles, punctuation, spaces; and write digits for words.

    Source: Antol et al. 2015, the steps of their evaluation that matter for single words; a decimal point stays.
    """
    text = re.sub(r"(?<!\d)[.]|[.](?!\d)|[^\w\s.]", " ", answer.lower())
    words = [NUMBERS.get(word, word) for word in text.split() if word not in ("a", "an", "the")]
    return " ".join(words)


NUMBERS = {
    word: str(number)
    for number, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
}


def blanked(batch: Batch) -> Batch:
    """Return the batch with every pixel the grey of an unread image: what the model knows without looking."""
    pixels = batch.pixels
    grey: Any = [torch.full_like(p, 128) for p in pixels] if isinstance(pixels, list) else torch.full_like(pixels, 128)
    return dataclasses.replace(batch, pixels=grey)


def table(scores: Mapping[str, Score], losses: Mapping[str, float] | None = None) -> str:
    """Return the scores as text, a line for each source."""
    lines = [f"{'source':<24} {'samples':>8} {'loss':>8} {'exact':>8} {'majority':>8}"]
    for source in sorted({*scores, *(losses or {})}):
        s = scores.get(source)
        loss = f"{losses[source]:.4f}" if losses and source in losses else "-"
        count, exact, majority = (f"{s.samples}", f"{s.exact:.1%}", f"{s.majority:.1%}") if s else ("-", "-", "-")
        lines.append(f"{source:<24} {count:>8} {loss:>8} {exact:>8} {majority:>8}")
    return "\n".join(lines)


def evaluate_checkpoint(folder: str, data: str, *, samples: int, answer_tokens: int, device: str) -> str:
    """Return the table of a checkpoint on a dataset: loss and exact match, as it is and with every image blanked."""
    model, recipe = restore(Path(folder), device)
    ranks = Ranks(0, 1, next(model.parameters()).device)
    feed = feed_of(recipe, model, data, ranks)
    step_of = Step(model, chunk=recipe.speed.loss_chunk, autocast=recipe.speed.precision == "autocast")
    lines = []
    for blank in (False, True):
        losses = held_out_loss(step_of, feed, samples, ranks, blank=blank)
        asked = some_samples(feed.reading, data, samples)
        answers = list(generate_answers(model, feed.reading, asked, max_new_tokens=answer_tokens, blank=blank))
        lines += ["images blanked:" if blank else "with images:", table(score(answers), losses.loss_of)]
    return "\n".join(lines)
