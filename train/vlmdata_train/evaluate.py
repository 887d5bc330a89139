"""Evaluates a checkpoint on a dataset: loss, and exact match of generated answers."""

from __future__ import annotations

import sys
from pathlib import Path

from vlmdata.count_line import CountLine
from vlmdata.redact import redacted
from vlmdata_train.checks import check_evaluation
from vlmdata_train.convert.restore import restore
from vlmdata_train.data.left_out import count_left_out, left_out_lines
from vlmdata_train.data.open_feed import feed_of, some_samples
from vlmdata_train.distributed import Ranks
from vlmdata_train.loop.answers import generate_answers
from vlmdata_train.loop.held_out import held_out_loss
from vlmdata_train.loop.score import score, table
from vlmdata_train.loop.train_step import ModelWithLoss


def evaluate_checkpoint(folder: str, data: str, *, samples: int, answer_tokens: int, device: str) -> str:
    """Return two tables of loss and exact match: one with the images, and one with every image replaced by grey.

    Up to `samples` samples are used. A generated answer has at most `answer_tokens` tokens. Raises RecipeError if the
    checkpoint or the data cannot be used.
    """
    check_evaluation(folder, data, samples=samples, answer_tokens=answer_tokens)
    model, recipe = restore(Path(folder), device)
    ranks = Ranks(0, 1, next(model.parameters()).device)
    feed = feed_of(recipe, model, data, ranks)
    model_with_loss = ModelWithLoss(model, chunk=recipe.speed.loss_chunk, autocast=recipe.speed.precision == "autocast")
    plan = feed.plan
    assert plan is not None
    count = min(samples, plan.samples(0))
    left_out = count_left_out(plan)
    if left_out.reasons:
        print(redacted("\n".join(left_out_lines(left_out.record(plan, feed.reading.prompt), data))), file=sys.stderr)
    report = []
    for blank in (False, True):
        title = "images blanked" if blank else "with images"
        with CountLine(f"{title}, loss", count) as line:
            losses = held_out_loss(model_with_loss, feed, samples, ranks, blank=blank, add=line.add)
        chosen = list(some_samples(feed.reading, data, samples))
        with CountLine(f"{title}, answers", len(chosen)) as line:
            answers = generate_answers(
                model, feed.reading, chosen, max_new_tokens=answer_tokens, blank=blank, add=line.add
            )  # fmt: skip
        report += [f"{title}:", table(score(answers), losses.loss_of)]
    return "\n".join(report)
