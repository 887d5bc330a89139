"""Decides for each threshold in which score's histogram it is drawn.

A rule is a step and a reason. If a rule rejected something, its verdicts hold the rejected values, and its threshold is drawn
in the histogram of the score that has these values. If a rule rejected nothing, the name of the parameter decides: `min_x` of
the step `s` limits the column `s.x`, and `min_score` limits the column `s`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlmdata.report.items import SIDES
from vlmdata.report.scan_ledger import Facts, Judged, Rule
from vlmdata.report.tally_numbers import LARGEST

LEVELS = 5  # maximum number of thresholds drawn for one rule, which may have one per language
# Minimum share of a rule's rejections that have the score's value. A row may lose its score when it is measured again.
AGREEMENT = 0.99


@dataclass(frozen=True)
class Line:
    """A threshold on a score, drawn as a line."""

    score: str
    at: float
    sign: str  # the comparison that keeps a score: ≥, >, ≤ or <
    step: str
    reason: str | None
    rejected: int

    @property
    def is_minimum(self) -> bool:
        """Whether the line is a minimum, so that kept scores are above it."""
        return self.sign in "≥>"


def lines(facts: Facts, recipe: dict[str, Any]) -> list[Line]:
    """Return a line for each threshold. Thresholds that rejected something come first."""
    found = []
    for rule, judged in facts.rules.items():
        score = score_of(rule, judged)
        if score is not None:
            levels = judged.thresholds.most_common()
            found += [Line(score, at, judged.sign, rule[0], rule[1], count) for at, count in sorted(levels[:LEVELS])]
    drawn = {(line.score, line.is_minimum, line.step) for line in found}
    for step, parameters in _steps(recipe):
        for name, at in parameters.items():
            score = _named(facts, step, name, parameters)
            is_minimum = name.startswith("min_")
            if score is not None and at != 0 and (score, is_minimum, step) not in drawn:  # 0 turns a limit off
                found.append(Line(score, float(at), "≥" if is_minimum else "≤", step, name, 0))
    return found


def score_of(rule: Rule, judged: Judged) -> str | None:
    """Return the score that a rule compares with its threshold, or None if no stored column holds it."""
    step, reason = rule
    agreeing = [name for name, count in judged.equal_to.items() if count >= AGREEMENT * judged.values.total]
    agreeing.sort(key=lambda name: (SIDES.get(name) != reason, not name.startswith(step), name))
    return agreeing[0] if agreeing else None


def step_names(recipe: dict[str, Any]) -> list[str]:
    """Return the labels of a recipe's steps, in order."""
    return [name for name, _ in _steps(recipe)]


def _steps(recipe: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the label and the parameters of each step of a manifest's recipe."""
    pairs = [next(iter(entry.items())) for entry in recipe["steps"]]
    files = [(name.split(".")[-2] if "." in name else name, parameters) for name, parameters in pairs]
    return [(parameters.get("label") or name, parameters) for name, parameters in files]


def _named(facts: Facts, step: str, name: str, parameters: dict[str, Any]) -> str | None:
    """Return the name of the score that the parameter `name` of a step limits, or None if this parameter limits no score."""
    kind, _, what = name.partition("_")
    value = parameters[name]
    if kind not in ("min", "max") or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not -LARGEST <= value <= LARGEST:  # infinity and NaN are not limits
        return None
    sides = [score for score, parameter in SIDES.items() if parameter == name and parameters.get("of") == "original"]
    names = [f"{step}.{what}", *([step] if what == "score" else []), *sides]
    return next((one for one in names if one in facts.scores), None)
