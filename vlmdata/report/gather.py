"""Gathers everything that page.html shows, as plain values."""

from __future__ import annotations

from collections import Counter
from typing import Any

import yaml

from vlmdata.engine.store.store_protocol import Store
from vlmdata.generation.totals import amount
from vlmdata.generation.writers import writers
from vlmdata.report import threshold_lines
from vlmdata.report.charts import charts
from vlmdata.report.example_images import Album, Shown
from vlmdata.report.examples import Chosen, Example, choose
from vlmdata.report.frequent_names import Heavy
from vlmdata.report.kept_samples import Stored, stored
from vlmdata.report.loss_lines import loss_lines
from vlmdata.report.recomputed_rows import open_recomputed
from vlmdata.report.scan_ledger import Facts, Rule, scan
from vlmdata.report.threshold_lines import Line, score_of, step_names
from vlmdata.show import other_records

MARGINS = 10  # maximum number of rules with examples near the threshold
PER_SIDE = 4
CLUSTERS = 4  # maximum number of clusters shown for each step
COPIES = 3
SAMPLES = 12
WRITTEN = 4  # samples with texts before and after, for each step that asks a generator
NAMES = 10  # maximum number of hosts or languages in a table


def gather(store: Store, manifest: dict[str, Any]) -> dict[str, Any]:
    """Read a dataset's files and return the values of page.html."""
    facts = scan(store, manifest)
    drawn = threshold_lines.lines(facts, manifest["recipe"])
    recomputed = open_recomputed(store, manifest)
    steps = [bound.step for bound in recomputed.worker.bound_steps] if recomputed else []
    private = {step.name for step in steps if step.is_private}
    levels = _levels(facts, drawn, private)
    clusters = _clusters(facts.clusters)
    chosen = choose(store, manifest, levels, [(step, key) for step, keys in clusters.items() for key in keys])
    kept_examples = [*chosen.samples, *(example for near in chosen.kept.values() for example in near)]
    kept_examples += [example for representative, _ in chosen.clusters.values() for example in representative]
    album = Album(store, recomputed, kept_examples)
    kept = stored(store)
    return {
        "head": _head(manifest, kept),
        "losses": loss_lines(store, manifest, "OUT"),
        "funnel": funnel(manifest),
        "others": other_records(manifest),
        "inside": [(*rule, count) for rule, count in sorted(facts.inside.items(), key=lambda item: (-item[1], str(item[0])))],
        "charts": charts(facts, drawn, kept),
        "margins": _margins(facts, levels, chosen, album),
        "generations": _generations(manifest, chosen, private, album),
        "clusters": [_cluster_step(facts, step, keys, chosen, album) for step, keys in clusters.items()],
        "samples": [shown for e in chosen.samples if (shown := album.show(e))][:SAMPLES],
        "hosts": _hosts(facts.hosts, manifest["rows"]),
        "words": [{"column": column, **_names(heavy)} for column, heavy in facts.words.items() if len(heavy.counts) > 1],
        "has_work": recomputed is not None,
        "recipe": _yaml(manifest["recipe"]),
    }


def _head(manifest: dict[str, Any], kept: Stored) -> dict[str, Any]:
    tars = [facts for name, facts in manifest["files"].items() if name.endswith(".tar")]
    return {
        "rows": manifest["rows"],
        "kept": manifest["kept"],
        "tars": len(tars),
        "bytes": sum(facts["bytes"] for facts in tars),
        "images": kept.images,
        "characters": kept.characters,
    }


def funnel(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Return for each step the number of rows that reach it, the number of rows that it drops, and the reasons of these drops.

    The steps are in the order of the recipe. Steps that dropped rows but are not in the recipe, such as "source", come before
    them. The reasons of a step are sorted by their number of rows, largest first.
    """
    sums: dict[str, Counter[str]] = {}
    for line in manifest["dropped"]:
        sums.setdefault(line["step"], Counter())[line["reason"] or ""] += line["rows"]
    order = step_names(manifest["recipe"])
    others = [step for step in sums if step not in order]
    left = manifest["rows"]
    steps = []
    for step in [*others, *order]:
        reasons = sums.get(step, Counter())
        steps.append({"step": step, "before": left, "dropped": reasons.total(), "reasons": reasons.most_common()})
        left -= reasons.total()
    return steps


def _yaml(recipe: dict[str, Any]) -> str:
    """Return a recipe as YAML with sorted keys. A manifest that was read from its file also has sorted keys."""
    parts = [{name: recipe[name]} for name in ("source", "steps", "shards", "part_rows")]
    return "".join(yaml.safe_dump(part, sort_keys=True, allow_unicode=True, width=100) for part in parts)


def _levels(facts: Facts, drawn: list[Line], private: set[str]) -> dict[Rule, tuple[float, Line | None]]:
    """Return for each rule that gets examples (its most frequent threshold, this threshold's line in a histogram or None).

    The rule with the most rejections is first. Rules of private steps are left out. Rules of steps that reject copies are also
    left out, because the page shows copies as clusters.
    """
    copying = {step for counter in facts.clusters.counts.values() for step in counter}
    rules = sorted(facts.rules.items(), key=lambda item: (-item[1].values.total, str(item[0])))
    levels: dict[Rule, tuple[float, Line | None]] = {}
    for rule, judged in rules:
        if rule[0] in copying or rule[0] in private or len(levels) == MARGINS:
            continue
        at, _ = max(judged.thresholds.items(), key=lambda item: (item[1], -item[0]))
        score = score_of(rule, judged)
        own = (line for line in drawn if (line.step, line.reason, line.score, line.at) == (*rule, score, at))
        levels[rule] = at, next(own, None)
    return levels


def _margins(facts: Facts, levels: dict[Rule, tuple[float, Line | None]], chosen: Chosen, album: Album) -> list[dict[str, Any]]:
    margins = []
    for rule, (at, line) in levels.items():
        rejected = _shown(chosen.rejected[rule], album, PER_SIDE if line else 2 * PER_SIDE)
        kept = _shown(chosen.kept[rule], album, PER_SIDE)
        if rejected or kept:
            judged = facts.rules[rule]
            margins.append(
                {
                    "step": rule[0],
                    "reason": rule[1],
                    "at": at,
                    "sign": judged.sign,
                    "score": line.score if line else None,
                    "count": judged.values.total,
                    "kept": kept,
                    "rejected": rejected,
                }
            )
    return margins


def _shown(examples: list[Example], album: Album, most: int) -> list[Shown]:
    """Return the first `most` examples that do not look alike, with pictures and texts."""
    shown: dict[tuple[str, int, int], Shown] = {}
    for example in examples:
        one = album.show(example) if len(shown) < most else None
        if one is not None:
            shown.setdefault((one.words, one.width, one.height), one)
    return list(shown.values())


def _generations(manifest: dict[str, Any], chosen: Chosen, private: set[str], album: Album) -> list[dict[str, Any]]:
    """Return for each step that asked a generator its models, what the answers took, and some texts before and after.

    Private steps get no texts.
    """
    written = [(example, album.written(example)) for example in chosen.samples] if manifest["generations"] else []
    found = []
    for writer in writers(manifest):
        entry = manifest["generations"][writer.step]
        shown: list[dict[str, Any]] = []
        for example, texts in written if writer.step not in private else []:
            own = [(before, after) for step, before, after in texts if step == writer.step]
            if own and len(shown) < WRITTEN and (picture := album.show(example)):
                shown.append({"shown": picture, "before": own[0][0], "after": [after for _, after in own]})
        failed, rejected = (
            sorted(entry[name].items(), key=lambda item: (-item[1], item[0])) for name in ("failed", "rejected")
        )
        cost = None if entry["money"] is None else amount(entry["money"])
        found.append({**entry, **writer._asdict(), "failed": failed, "rejected": rejected, "cost": cost, "shown": shown})
    return found


def _clusters(heavy: Heavy) -> dict[str, list[str]]:
    """Return the steps that reject copies, each with the keys of the kept rows that have the most copies."""
    steps = sorted({step for counter in heavy.counts.values() for step in counter if step is not None})
    return {
        step: sorted(
            (key for key, counter in heavy.counts.items() if counter[step]), key=lambda key: (-heavy.counts[key][step], key)
        )[:CLUSTERS]
        for step in steps
    }


def _cluster_step(facts: Facts, step: str, keys: list[str], chosen: Chosen, album: Album) -> dict[str, Any]:
    shown = []
    for key in keys:
        representative, copies = chosen.clusters[step, key]
        kept = _shown(representative, album, 1)
        if kept:
            size = facts.clusters.counts[key][step]
            seen = [one for copy in copies[:COPIES] if (one := album.show(copy))]
            shown.append({"kept": kept[0], "copies": seen, "size": size})
    counters = [counter for counter in facts.clusters.counts.values() if counter[step]]
    return {
        "step": step,
        "copies": sum(counter[step] for counter in counters),
        "originals": len(counters),
        "is_exact": facts.clusters.is_exact,
        "shown": shown,
    }


def _hosts(heavy: Heavy, rows: int) -> dict[str, Any]:
    """Return up to `NAMES` hosts with the most rows. If there are more hosts, also return those with the most rejected rows."""
    most = _names(heavy)
    lost = sorted(heavy.counts.items(), key=lambda item: (-(item[1].total() - item[1][None]), item[0]))[:NAMES]
    listed = [_name(host, counter) for host, counter in lost if counter.total() > counter[None]]
    return {**most, "lost": listed if len(heavy.counts) > NAMES else []}


def _names(heavy: Heavy) -> dict[str, Any]:
    largest = heavy.largest(NAMES)
    return {
        "names": [_name(name, counter) for name, counter in largest],
        "most": largest[0][1].total() if largest else 0,
        "distinct": len(heavy.counts),
        "is_exact": heavy.is_exact,
    }


def _name(name: str, counter: Counter[str | None]) -> dict[str, Any]:
    """Return how many rows a name has, how many are kept, and the step that dropped the most rows."""
    lost = sorted(((count, step) for step, count in counter.items() if step is not None and count), reverse=True)
    return {"name": name, "rows": counter.total(), "kept": counter[None], "loss": lost[0] if lost else None}
