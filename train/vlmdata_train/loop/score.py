"""Scores of generated answers, per source."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from vlmdata_train.loop.answers import GeneratedAnswer

FOUND = 0.5  # IoU from which a box counts as found; the value of RefCOCO's accuracy (Yu et al. 2016)


@dataclass(frozen=True)
class Score:
    """Score of the answers of one source, which is a folder of tars. Shares are in [0, 1]."""

    samples: int
    exact: float  # share of answers that equal the true answer after `normalise`
    majority: float  # `exact` of a model that always gives the most common true answer
    boxes: float | None = None  # share of the answers with boxes in which each box has an IoU of 0.5 or more; None: no boxes


def score(answers: list[GeneratedAnswer]) -> dict[str, Score]:
    """Return the score of each source."""
    scores = {}
    for source in sorted({a.source for a in answers}):
        own = [(normalise(a.truth), normalise(a.generated)) for a in answers if a.source == source]
        most_common = Counter(truth for truth, _ in own).most_common(1)[0][1]
        overlaps = [a.overlap for a in answers if a.source == source and a.overlap is not None]
        found = sum(value >= FOUND for value in overlaps) / len(overlaps) if overlaps else None
        scores[source] = Score(len(own), sum(t == g for t, g in own) / len(own), most_common / len(own), found)
    return scores


def normalise(answer: str) -> str:
    """Return an answer in lower case, without articles, punctuation and extra spaces, and with digits for number words.

    A decimal point is kept. Source: the evaluation of VQA, Antol et al. 2015. Its steps that do not matter for
    single words are omitted.
    """
    text = re.sub(r"(?<!\d)[.]|[.](?!\d)|[^\w\s.]", " ", answer.lower())
    words = [NUMBERS.get(word, word) for word in text.split() if word not in ("a", "an", "the")]
    return " ".join(words)


NUMBERS = {
    word: str(number)
    for number, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"])
}


def table(scores: Mapping[str, Score], losses: Mapping[str, float] | None = None) -> str:
    """Return the scores as a text table, one line for each source. It has a column of boxes if some answers have boxes."""
    has_boxes = any(s.boxes is not None for s in scores.values())
    lines = [f"{'source':<24} {'samples':>8} {'loss':>8} {'exact':>8} {'majority':>8}" + f" {'boxes':>8}" * has_boxes]
    for source in sorted({*scores, *(losses or {})}):
        s = scores.get(source)
        loss = f"{losses[source]:.4f}" if losses and source in losses else "-"
        count, exact, majority = (f"{s.samples}", f"{s.exact:.1%}", f"{s.majority:.1%}") if s else ("-", "-", "-")
        boxes = f"{s.boxes:.1%}" if s and s.boxes is not None else "-"
        lines.append(f"{source:<24} {count:>8} {loss:>8} {exact:>8} {majority:>8}" + f" {boxes:>8}" * has_boxes)
    return "\n".join(lines)
