"""Reads the opt-outs in the answers of sites: X-Robots-Tag and the TDM Reservation Protocol."""

import json
from collections.abc import Collection, Sequence

from vlmdata.web.robots import matches, normalise

Headers = Sequence[tuple[str, str]]

MAX_RULES = 10_000
# directives that contain a colon, so the text before it is not the name of an agent
_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_AI = frozenset({"noai", "noimageai", "noml"})


def tag_refusal(headers: Headers, agent: str, directives: Collection[str]) -> str | None:
    """Return `noai` or `noindex` if an X-Robots-Tag among the headers refuses the agent, or None if no tag does.

    Names of headers are in lower case. `directives` lists the directives that count as refusals. A tag may name an agent, as in
    `otherbot: noai, noindex`. The name then applies to all directives up to the next name in the same header.
    """
    found = None
    for name, value in headers:
        if name != "x-robots-tag":
            continue
        addressee = ""
        for piece in value.lower().split(","):
            head, colon, tail = piece.partition(":")
            if colon and head.strip() not in _VALUED:
                addressee, piece = head.strip(), tail
            directive = piece.strip()
            if directive in directives and addressee in ("", "*", agent.lower()):
                if directive in _AI:
                    return "noai"
                found = "noindex"
    return found


def tdm_reservation(headers: Headers) -> bool | None:
    """Return whether the header tdm-reservation reserves the right to text and data mining.

    Return None if no such header is readable.
    """
    for name, value in headers:
        if name == "tdm-reservation" and value.strip() in ("0", "1"):
            return value.strip() == "1"
    return None


def parse_tdmrep(body: bytes) -> tuple[tuple[bool, str], ...]:
    """Return the rules of a /.well-known/tdmrep.json as (reserved, pattern) in order. An invalid file has no rules."""
    try:
        entries = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(entries, list):
        return ()
    rules = []
    for entry in entries[:MAX_RULES]:
        if not isinstance(entry, dict):
            continue
        location, reservation = entry.get("location"), entry.get("tdm-reservation")
        if isinstance(location, str) and location and reservation in (0, 1, "0", "1"):
            rules.append((int(reservation) == 1, normalise(location, is_pattern=True)))
    return tuple(rules)


def file_reservation(rules: Sequence[tuple[bool, str]], path: str) -> bool | None:
    """Return whether a path with its query is reserved, or None if no rule matches. The first rule that matches decides."""
    if not rules:
        return None
    path = normalise(path, is_pattern=False)
    return next((reserved for reserved, pattern in rules if matches(pattern, path)), None)
