"""What the answers of models took, added up by step: the manifest's field `generations`, and words about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from vlmdata.generation.asking_step import AskingStep
from vlmdata.readable import visible
from vlmdata.sizes import counted
from vlmdata.step import Step

Sums = Mapping[str, Mapping[str, float]]  # the sums of `Step.spent` by step
SHOWN = 5  # reasons that a text names


def generations(steps: Iterable[Step], parts: Iterable[Sums]) -> dict[str, dict[str, Any]]:
    """Return an entry for each step whose sums are not empty, by the step's name, in the order of the steps.

    `parts` holds the sums of each partition. An entry has the numbers of `answers` and of answers that were `accepted` (None if
    the step counts none), `failed` and `rejected` by reason, `prompt_tokens`, `tokens`, `seconds`, and `money`: what the
    generator says that the tokens cost, or None without prices.
    """
    totals: dict[str, Counter[str]] = {}
    for part in parts:
        for name, sums in part.items():
            totals.setdefault(name, Counter()).update(sums)
    return {step.name: _entry(step, totals[step.name]) for step in steps if totals.get(step.name)}


def _entry(step: Step, sums: Counter[str]) -> dict[str, Any]:
    failed, rejected = _by_reason(sums, "failed/"), _by_reason(sums, "rejected/")
    prompt_tokens, tokens = int(sums["prompt_tokens"]), int(sums["tokens"])
    is_judged = "accepted" in sums or rejected
    return {
        "answers": int(sums["answers"]),
        "failed": failed,
        "accepted": int(sums["accepted"]) if is_judged else None,
        "rejected": rejected,
        "prompt_tokens": prompt_tokens,
        "tokens": tokens,
        "seconds": round(float(sums["seconds"]), 3),
        "money": step.writer().money(prompt_tokens, tokens) if isinstance(step, AskingStep) else None,
    }


def _by_reason(sums: Counter[str], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): int(sums[name]) for name in sorted(sums) if name.startswith(prefix) and sums[name]}


def phrases(entry: Mapping[str, Any]) -> list[str]:
    """Return phrases about an entry: "12 answers", "3 failed (timeout 3)", "36 + 120 tokens", "0.4 s", "cost 0.12".

    The first number of tokens is that of the prompts. Seconds are summed over the answers, also if they came at the same time.
    """
    found = [counted(entry["answers"], "answer")]
    found += [f"{sum(entry['failed'].values()):,} failed ({reasons(entry['failed'])})"] if entry["failed"] else []
    found += [f"{entry['accepted']:,} used"] if entry["accepted"] is not None else []
    found += [f"{sum(entry['rejected'].values()):,} not used ({reasons(entry['rejected'])})"] if entry["rejected"] else []
    found += [f"{entry['prompt_tokens']:,} + {entry['tokens']:,} tokens", f"{entry['seconds']:,.1f} s"]
    return [*found, *([f"cost {amount(entry['money'])}"] if entry["money"] is not None else [])]


def reasons(counts: Mapping[str, int]) -> str:
    """Return the most frequent reasons with their numbers: "timeout 2, http_400 1"."""
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{visible(reason)} {count:,}" for reason, count in order[:SHOWN]]
    return ", ".join([*named, *([f"others {sum(count for _, count in order[SHOWN:]):,}"] if len(order) > SHOWN else [])])


def amount(money: float) -> str:
    """Return an amount of money, in the currency of the generator's prices: two decimals, or two digits below 1."""
    return f"{money:,.2f}" if money >= 1 or not money else f"{money:.2g}"
