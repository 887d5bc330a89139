"""Writes the explanation of a surprising result as lines, for the terminal and for the report."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from typing import Any

import yaml

from vlmdata import catalog
from vlmdata.engine.store.store_protocol import Store
from vlmdata.images.facts import REASONS as IMAGE_ERRORS
from vlmdata.readable import UNPRINTABLE, number, text, visible
from vlmdata.redact import redacted
from vlmdata.report.losses import REASONS, SOURCE, Loss, Near, are_hardly_any, find_losses
from vlmdata.sizes import counted
from vlmdata.step import Source
from vlmdata.web.outcomes import described, is_fetch_failure, is_passing
from vlmdata.web.url import bracketed, is_literal, parse_url

NO_IMAGE_FILE = ("no_file", "outside_folder")
SHOWN_HOSTS = 5
URL_CHARS = 80
LISTED = 3  # values of a list, such as languages, that a suggested setting adds or removes


def loss_lines(store: Store, manifest: dict[str, Any], out: str) -> list[str]:
    """Return the lines that explain why hardly any rows were kept, or no lines if enough were kept.

    `out` is the name of the dataset in the commands that the lines suggest.
    """
    rows, kept = manifest["rows"], manifest["kept"]
    if not rows:
        return [] if manifest["limit"] == 0 else ["The source has no rows."]
    if not are_hardly_any(kept, rows):
        return []
    lines = [
        "Nothing was kept. The steps that took most:" if kept == 0 else "Hardly any row was kept. The steps that took most:"
    ]
    for loss in find_losses(store, manifest):
        lines += [
            f"{visible(loss.step)} took {loss.rows:,} of the {counted(loss.before, 'row')} that reached it",
            *_of(loss, out),
        ]
    return lines


def _of(loss: Loss, out: str) -> Iterator[str]:
    listed: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for reason, rows in loss.reasons:
        rule = loss.cls.limit(reason) if loss.cls and reason else None
        if rule and rule[0] in ("in", "not in"):
            listed.setdefault(rule[:2], []).append((rule[2], rows))
    for (sign, parameter), found in listed.items():
        yield from _listed(loss, sign, parameter, found)
    for reason, rows in loss.reasons[:REASONS]:
        rule = loss.cls.limit(reason) if loss.cls and reason else None
        if rule and rule[0] in ("in", "not in"):
            continue
        if loss.fetches and reason and is_fetch_failure(reason):
            yield from _failed(loss, reason, rows, out)
        elif rule and rule[0] == "=":
            yield f"  {visible(reason or '')}: {counted(rows, 'row')}"
            yield f"    this keeps them: {_setting(loss, rule[1], rule[2])}"
        else:
            yield from _measured(loss, reason, rows, rule, out)
    rest = [rows for reason, rows in loss.reasons[REASONS:]]
    if rest and not listed:
        yield f"  {counted(len(rest), 'other reason')}: {counted(sum(rest), 'row')}"


def _measured(loss: Loss, reason: str | None, rows: int, rule: tuple[str, str, str] | None, out: str) -> Iterator[str]:
    """Yield lines about a reason that compares a value with a threshold, or that has neither."""
    near = loss.nearest.get(reason, [])
    values = [one.value for one in near if one.value is not None]
    name = visible(reason or "dropped")
    if rule is None or not values or len(values) < len(near):
        meaning = IMAGE_ERRORS.get(reason or "", "") if loss.decodes else ""
        yield f"  {name}: {counted(rows, 'row')}{f'; {meaning}' if meaning else ''}"
        yield from _unmeasured(loss, reason, near, out)
        return
    sign, parameter, which = rule
    needed = {"<": "at least", "<=": "more than", ">": "at most", ">=": "less than"}[sign]
    limits = " or ".join(sorted({number(one.threshold) for one in near if one.threshold is not None}))
    yield f"  {name}: {counted(rows, 'row')}; required: {needed} {limits}. The nearest:"
    yield from (f"    {number(one.value or 0)}  {_name(loss, one)}" for one in near)
    old = loss.parameters.get(parameter)
    is_of_dict = isinstance(old, dict)
    old = old.get(which) if isinstance(old, dict) else old
    if isinstance(old, bool) or not isinstance(old, int | float):
        return
    new = keeping(sign, values, is_whole=isinstance(old, int))
    if new < 0 <= old:
        yield f"    no value of {parameter} keeps them"
    else:
        value: Any = {**loss.parameters[parameter], which: new} if is_of_dict else new
        yield f"    {'this keeps them' if len(near) > 1 else 'this keeps it'}: {_setting(loss, parameter, value)}"


def _unmeasured(loss: Loss, reason: str | None, near: list[Near], out: str) -> Iterator[str]:
    """Yield what was expected and what was found, for a reason without a threshold."""
    for one in near:
        if one.problem or (one.place and loss.cls is None):
            yield f"    {visible(one.place or one.key, 200)}: {visible(redacted(one.problem or 'cannot be used'), 200)}"
        elif name := _name(loss, one):
            yield f"    such as {f'{number(one.value)}  ' if one.value is not None else ''}{name}"
    if loss.step == SOURCE and reason in NO_IMAGE_FILE:
        yield from _folder(loss.parameters)
    if loss.cls is not None and not loss.decodes and (first := (loss.cls.__doc__ or "").partition("\n\n")[0]):
        yield f"    the step: {' '.join(first.split())}"
    if reason and not (loss.cls and loss.cls.is_private):
        yield f"    more of them: vlmdata why {shlex.quote(out)} {shlex.quote(visible(reason))}"


def _folder(source: dict[str, Any]) -> Iterator[str]:
    """Yield a line with the setting of the folder in which a source looked for the image files that its rows name."""
    kind = source.get("type")
    cls: Any = catalog.find("sources", kind) if kind in catalog.names("sources") else Source
    name = cls.images_in
    if name:
        yield f"    looked for in {source.get(name) or 'the folder of the list'}; to change it: --set source.{name}=FOLDER"


def _listed(loss: Loss, sign: str, parameter: str, found: list[tuple[str, int]]) -> Iterator[str]:
    """Yield lines about reasons that compare a word, such as a language, with a list."""
    counts = ", ".join(f"{visible(word)} ({rows:,})" for word, rows in found[:LISTED])
    more = f" and {len(found) - LISTED} others" if len(found) > LISTED else ""
    old = loss.parameters.get(parameter)
    expected = text(old) if old else "nothing"
    yield f"  {parameter}: expected {'' if sign == 'not in' else 'none of '}{expected}; found {counts}{more}"
    words = [word for word, _ in found[:LISTED] if not UNPRINTABLE.search(word)]
    if isinstance(old, list) and words:
        new = [*old, *words] if sign == "not in" else [word for word in old if word not in words]
        yield f"    this keeps them: {_setting(loss, parameter, new)}"
    elif isinstance(old, str) and words:
        yield f"    this keeps {words[0]}: {_setting(loss, parameter, words[0])}"


def _failed(loss: Loss, reason: str, rows: int, out: str) -> Iterator[str]:
    """Yield lines about a failed fetch: what it means, the hosts, and what helps."""
    meaning, settings = described(reason)
    yield f"  {reason}: {counted(rows, 'row')}; {meaning}"
    hosts = [(host, count) for host, count in loss.hosts[reason].most_common() if _canonical(host)]
    if hosts:
        names = ", ".join(f"{host} ({count:,})" for host, count in hosts[:SHOWN_HOSTS])
        yield f"    hosts: {names}{f' and {len(hosts) - SHOWN_HOSTS:,} others' if len(hosts) > SHOWN_HOSTS else ''}"
    retry = f"vlmdata retry {shlex.quote(out)}"
    names_of = [setting.lstrip("+-") for setting in settings]
    if "+allowed_hosts" in settings:
        before = loss.parameters.get("allowed_hosts") or []
        new = [name for host, _ in hosts[:SHOWN_HOSTS] if (name := _canonical(host)) not in before]
        if new:
            yield f"    if these hosts are yours: {retry} {_setting(loss, 'allowed_hosts', [*before, *new])}"
        elif hosts:
            yield f"    these hosts are allowed now; this asks again: {retry}"
    elif is_passing(reason):
        yield f"    temporary; this asks again: {retry}"
    elif names_of:
        depends = " and ".join([", ".join(names_of[:-1]), names_of[-1]] if len(names_of) > 1 else names_of)
        yield f"    depends on {loss.step}.{depends}; after a change: {retry}"
    else:
        yield "    permanent: no setting helps"


def _canonical(host: str) -> str:
    """Return a host as `allowed_hosts` names it, or "" if it is not a host."""
    url = parse_url(f"http://{host}/")
    return url.host if url and (is_literal(url.host) or bracketed(url.host) == host) else ""


def _name(loss: Loss, one: Near) -> str:
    """Return a short name of a row: its address or key. Rows of private steps have no name."""
    if loss.cls is not None and loss.cls.is_private:
        return ""
    return visible(redacted(one.url), URL_CHARS) if one.url else f"{one.key}{f' ({visible(one.place)})' if one.place else ''}"


def _setting(loss: Loss, parameter: str, value: Any) -> str:
    """Return an option that can be copied to a shell: `--set image_size.min_side=64`."""
    written = (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).strip().removesuffix("...").strip()
    )
    return f"--set {shlex.quote(f'{loss.step}.{parameter}={written}')}"


def keeping(sign: str, values: list[float], *, is_whole: bool) -> int | float:
    """Return a threshold with three significant digits that keeps all values, as near to them as possible.

    `sign` is the comparison that rejects: a value `<` the threshold, for example. Whole thresholds are exact.
    """
    is_minimum = sign in ("<", "<=")
    value = min(values) if is_minimum else max(values)
    unit = 1.0 if is_whole or value == 0 else 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    rounded = (math.floor if is_minimum else math.ceil)(value / unit)
    if sign in ("<=", ">=") and rounded * unit == value:
        rounded += -1 if is_minimum else 1
    if is_whole:
        return int(rounded)
    near = float(f"{rounded * unit:.12g}")  # without the noise of the multiplication
    while near > value if is_minimum else near < value:
        rounded += -1 if is_minimum else 1
        near = float(f"{rounded * unit:.12g}")
    return near
