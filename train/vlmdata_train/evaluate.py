"""How good is it: loss on samples it never saw, and generated answers against the true ones."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from vlmdata.images.facts import ImageError
from vlmdata.redact import redacted
from vlmdata_train.batch import IGNORE, Batch
from vlmdata_train.checks import check_evaluation
from vlmdata_train.collate import Ready, build_batch
from vlmdata_train.count_line import CountLine
from vlmdata_train.data import Feed
from vlmdata_train.distributed import Ranks, gathered
from vlmdata_train.documents import read_document
from vlmdata_train.generate import generate
from vlmdata_train.left_out import count_left_out, lines
from vlmdata_train.model import VisionLanguageModel
from vlmdata_train.open_feed import feed_of, some_samples
from vlmdata_train.reading import Reading, Sample, source_of
from vlmdata_train.restore import restore
from vlmdata_train.step import Micro, Step, to_device


@dataclass(frozen=True)
class HeldOutLoss:
    """Cross-entropy per answer token, over all and per source."""

    loss: float
    loss_of: dict[str, float]
    samples: int


@torch.no_grad()
def held_out_loss(
    step_of: Step, feed: Feed, samples: int, ranks: Ranks, *, blank: bool = False, add: Callable[[int], None] = lambda _: None
) -> HeldOutLoss:
    """Return the loss on the first `samples` samples of a feed, each rank its share. `blank` makes every image grey.

    It is a fixed set, counted by answer token; every rank must call it. Where ranks share the weights, one whose share is
    read goes on with the others, on a batch of nothing. `add` gets the number of samples of all ranks done since its last call.
    """
    was_training = step_of.training
    step_of.eval()
    sums: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    seen = 0
    batches: Any = iter(feed)
    while True:
        batch, _ = next(batches, (None, None)) if seen * ranks.world < samples else (None, None)
        if not isinstance(step_of, FSDPModule):
            is_over = batch is None
        else:
            is_over = not any(gathered(batch is not None, ranks))
        if is_over:
            break
        if batch is None:
            step_of(Micro.of(nothing(), ranks.device))
            continue
        micro = Micro.of(blanked(batch) if blank else batch, ranks.device)
        _, of_sample = step_of(micro)
        for source, loss, count in zip(batch.sources, of_sample.tolist(), micro.answers, strict=True):
            sums[source] += loss
            tokens[source] += count
        seen += len(batch.keys)
        add(len(batch.keys) * ranks.world)
    batches.close()
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


Question = tuple[Ready, str]  # a prompt, and the true answer


def questions(reading: Reading, samples: Iterable[Sample]) -> Iterator[Question]:
    """Make of each sample the prompt before its last answer, or before its caption; what gives none is passed over."""
    for sample in samples:
        try:
            prompt, truth = reading.prompter.before_answer(read_document(sample))
        except (KeyError, ValueError, ImageError):
            continue
        yield Ready(prompt, source_of(sample), str(sample["__key__"])), truth


@torch.no_grad()
def generate_answers(
    model: VisionLanguageModel, reading: Reading, samples: Iterable[Sample], *, max_new_tokens: int, blank: bool = False,
    at_once: int = 32, add: Callable[[int], None] = lambda _: None,
) -> list[Answer]:  # fmt: skip
    """Ask the model for the last answer of samples, or for their captions. `blank` makes every image grey."""
    asked = list(questions(reading, samples))
    return _generate(model, reading, asked, max_new_tokens, bool, blank=blank, at_once=at_once, add=add)


@torch.no_grad()
def held_out_answers(
    step_of: Step, reading: Reading, samples: Iterable[Sample], ranks: Ranks, *, max_new_tokens: int,
    add: Callable[[int], None] = lambda _: None,
) -> list[Answer]:  # fmt: skip
    """Ask for the answers of samples, each rank its share, and return all of them to all. Every rank must call it."""
    asked = list(questions(reading, samples))
    share = -(-len(asked) // ranks.world)
    own = asked[ranks.rank * share : (ranks.rank + 1) * share]
    if not isinstance(step_of, FSDPModule):
        answers = _generate(step_of.model, reading, own, max_new_tokens, bool, add=lambda count: add(count * ranks.world))
        return [answer for part in gathered(answers, ranks) for answer in part]
    # Blocks are put together as they are met, on all ranks at once: all must take the same steps, with as many questions.
    step_of.unshard()  # what is in no block: tower, embeddings, output layer
    filled = own + asked[:1] * (share - len(own))
    answers = _generate(
        step_of.model, reading, filled, max_new_tokens, lambda done: all(gathered(done, ranks)),
        add=lambda count: add(count * ranks.world),
    )  # fmt: skip
    step_of.reshard()
    return [answer for part in gathered(answers[: len(own)], ranks) for answer in part]


def _generate(
    model: VisionLanguageModel, reading: Reading, asked: list[Question], max_new_tokens: int,
    is_over: Callable[[bool], bool], *, blank: bool = False, at_once: int = 32, add: Callable[[int], None] = lambda _: None,
) -> list[Answer]:  # fmt: skip
    was_training = model.training
    model.eval()
    answers, stop_ids = [], reading.prompter.template.stop_ids
    for start in range(0, len(asked), at_once):
        some = asked[start : start + at_once]
        ready = [one for one, _ in some]
        batch = build_batch(ready, reading.plan, reading.prompter.pad_id, packed_tokens=None, broken=Counter())
        batch = to_device(blanked(batch) if blank else batch, next(model.parameters()).device)
        tokens = generate(model, batch, max_new_tokens=max_new_tokens, stop_ids=stop_ids, is_over=is_over)
        for (one, truth), row in zip(some, tokens, strict=True):
            answers.append(Answer(one.source, one.key, truth, reading.prompter.said(row)))
        add(len(some))
    model.train(was_training)
    return answers


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


def nothing() -> Batch:
    """Return a batch of one token without a loss."""
    one = torch.zeros(1, 1, dtype=torch.int64)
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(
        input_ids=one, labels=torch.full_like(one, IGNORE), position_ids=one, segment_ids=torch.ones(1, 1, dtype=torch.int32),
        pixels=torch.zeros(0, 3, 1, 1), image_token_counts=none, tile_counts=none, image_sizes=none.view(0, 2), sources=["-"],
        keys=["-"],
    )  # fmt: skip


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
    check_evaluation(folder, data, samples=samples, answer_tokens=answer_tokens)
    model, recipe = restore(Path(folder), device)
    ranks = Ranks(0, 1, next(model.parameters()).device)
    feed = feed_of(recipe, model, data, ranks)
    step_of = Step(model, chunk=recipe.speed.loss_chunk, autocast=recipe.speed.precision == "autocast")
    plan = feed.plan
    assert plan is not None
    count = min(samples, plan.samples(0))
    left_out = count_left_out(plan)
    if left_out.reasons:
        print(redacted("\n".join(lines(left_out.record(plan, feed.reading.prompt), data))), file=sys.stderr)
    told = []
    for blank in (False, True):
        how = "images blanked" if blank else "with images"
        with CountLine(f"{how}, loss", count) as line:
            losses = held_out_loss(step_of, feed, samples, ranks, blank=blank, add=line.add)
        asked = list(some_samples(feed.reading, data, samples))
        with CountLine(f"{how}, answers", len(asked)) as line:
            answers = generate_answers(
                model, feed.reading, asked, max_new_tokens=answer_tokens, blank=blank, add=line.add
            )  # fmt: skip
        told += [f"{how}:", table(score(answers), losses.loss_of)]
    return "\n".join(told)
