"""Builds the histograms of the report.

They show the scores, the values that a rule rejected (if the values that it kept are not stored), and sizes of kept samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vlmdata.report.bins import make, nice, short
from vlmdata.report.chart import ChartLayer, histogram
from vlmdata.report.kept_samples import Stored
from vlmdata.report.scan_ledger import Facts, Judged, Rule
from vlmdata.report.tally_numbers import NumberTally, merged
from vlmdata.report.threshold_lines import Line, score_of
from vlmdata.sizes import counted

HASHES = 2.0**53  # a column with larger values holds hashes, because no count or size is so large
QUIET = ("text length, characters", "bytes of a sample", "images in a sample")


def charts(facts: Facts, drawn: list[Line], kept: Stored) -> dict[str, list[dict[str, Any]]]:
    """Return two lists of charts: `decided` holds the charts with thresholds, and `measured` holds those without."""
    with_lines: list[dict[str, Any]] = []
    without: list[dict[str, Any] | None] = []
    for score, by_rule in facts.scores.items():
        if score in facts.unsigned and (hashes := _hashes(score, list(by_rule.values()))):
            without.append(hashes)
            continue
        own = [line for line in drawn if line.score == score]
        chart = _score(score, dict(by_rule), own)
        if chart is not None:
            with_lines.append(chart) if chart["is_decided"] else without.append(chart)
    for rule, judged in facts.rules.items():
        if score_of(rule, judged) is None and len(judged.values.keys) > 1:
            with_lines.append(_rejected(rule, judged))
    for name, tally in zip(QUIET, (kept.text_length, kept.sample_bytes, kept.images_each), strict=True):
        if len(tally.keys) > 1:
            without.append(_score(name, {None: tally}, []))
    return {"decided": with_lines, "measured": [chart for chart in without if chart]}


def _hashes(score: str, tallies: list[NumberTally]) -> dict[str, Any] | None:
    """Return the entry of a column of hashes, which has no histogram, or None if the column is empty or holds counts."""
    whole = merged(tallies)
    if not whole.total or whole.quantile(1) < HASHES:
        return None
    return {"title": score, "hashes": whole.total}


def _score(score: str, by_rule: dict[Rule | None, NumberTally], own: list[Line]) -> dict[str, Any] | None:
    """Return the chart of one score, or None if the score has no values."""
    whole = merged(list(by_rule.values()))
    if not whole.total:
        return None
    deciding = {(line.step, line.reason) for line in own if line.rejected}
    bins = make(whole, own)
    groups = {
        "kept": [tally for rule, tally in by_rule.items() if rule is None],
        "here": [tally for rule, tally in by_rule.items() if rule in deciding],
        "elsewhere": [tally for rule, tally in by_rule.items() if rule is not None and rule not in deciding],
    }
    sums = {kind: merged(tallies) for kind, tallies in groups.items()}
    layers = [ChartLayer(kind, bins.count(tally)) for kind, tally in sums.items()]
    counts = {kind: tally.total for kind, tally in sums.items()}
    reached = merged([sums["kept"], sums["here"]])
    # a line gets a note only if values were compared with it, and it rejects some of them or is on the scale
    noted = [line for line in own if reached.total and (line.rejected or bins.holds(line))]
    middle = short(whole.quantile(0.5))
    label = f"Histogram of {score}: {counts['kept']:,} kept, {counts['here']:,} rejected by it, median {middle}"
    return {
        "title": score,
        "svg": histogram(bins, layers, own, label),
        "counts": counts,
        "middle": middle,
        "lines": [_what_if(line, reached, bins.is_whole) for line in noted],
        "is_partial": False,
        "is_decided": bool(noted),
    }


def _rejected(rule: Rule, judged: Judged) -> dict[str, Any]:
    """Return the chart of the values that a rule rejected. It is used if the values that the rule kept are not stored."""
    (step, reason), tally = rule, judged.values
    at = judged.thresholds.most_common(1)[0][0]
    line = Line(step, at, judged.sign, step, reason, tally.total)
    bins = make(tally, [line])
    label = f"Histogram of the {counted(tally.total, 'value')} that {step} rejected as {reason}"
    return {
        "title": f"{step}: {reason}",
        "svg": histogram(bins, [ChartLayer("here", bins.count(tally))], [line], label),
        "counts": {"kept": 0, "here": tally.total, "elsewhere": 0},
        "middle": short(tally.quantile(0.5)),
        "lines": [],
        "is_partial": True,
        "is_decided": True,
    }


def _what_if(line: Line, reached: NumberTally, is_whole: bool) -> dict[str, Any]:
    """Return how many values are compared with the threshold `line`, and how many of them it rejects.

    Also return how many values a slightly lower threshold and a slightly higher threshold would reject.
    """
    low, wide = reached.quantile(0.05), reached.quantile(0.95) - reached.quantile(0.05)
    step = nice(max(wide, 1e-9) / 10)
    step = max(1.0, step) if is_whole else step
    others = [line.at - step, line.at + step]
    return {
        "step": line.step,
        "reason": line.reason,
        "sign": line.sign,
        "at": short(line.at),
        "reached": reached.total,
        "rejects": beyond(reached, line.at, line.sign),
        "others": [(short(at), beyond(reached, at, line.sign)) for at in others if at > 0 or low < 0],
    }


def beyond(tally: NumberTally, at: float, sign: str) -> int:
    """Return how many values the threshold `at` rejects. `sign` (≥, >, ≤ or <) says how kept values compare to `at`.

    A value counts as equal to `at` if they differ only by rounding.
    """
    values = tally.values()
    slack = abs(at) * 2.0**-12
    bad = {
        "≥": values < at - slack,
        ">": values <= at + slack,
        "≤": values > at + slack,
        "<": values >= at - slack,
    }[sign]
    return int(tally.counts[np.asarray(bad)].sum())
