"""Lists of claims that a model writes, one on each line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vlmdata.generation.captions import MOST_CHARS, REFUSALS, Rejection, cleaned, refuses

MOST_CLAIM_CHARS = 1000  # a longer line is no claim
NONE = "none"  # what a model writes if a text claims nothing
_MARK = re.compile(r"^\s*(?:[-*\u2022\u2013]+|\(?\d{1,3}[.):])\s+")  # "- ", "12. ", "(3) "
_HEAD = re.compile(r":\s*\**$")


def claims_in(answer: Mapping[str, Any], most: int) -> list[str] | Rejection:
    """Return the claims in an answer with the fields of ANSWER, without repetitions, or why it is no list of claims.

    Numbers and bullets before a claim are removed. A first line that ends with a colon is no claim. The word "none" alone means
    an empty list. An answer that reached `max_tokens` is `length`, because claims would be missing. The other reasons are
    `refusal`, `filter`, `empty`, `too_long` (20,000 characters, or 1,000 in one line) and `too_many` (more than `most` claims).
    """
    if answer["failure"] or answer["finish"] in ("length", "refusal", "filter"):
        return Rejection(answer["failure"] or answer["finish"])
    text = answer["text"] or ""
    if len(text) > MOST_CHARS:
        return Rejection("too_long", len(text), MOST_CHARS)
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and _HEAD.search(lines[0]) and len(lines) > 1:
        lines = lines[1:]
    found = [claim for line in lines if any(map(str.isalnum, claim := cleaned(_MARK.sub("", line))))]
    if not found:
        return Rejection("empty")
    if refuses(found[0], REFUSALS):
        return Rejection("refusal")
    if len(found) == 1 and found[0].casefold().strip(" .") == NONE:
        return []
    first: dict[str, str] = {}
    for claim in found:
        first.setdefault(claim.casefold(), claim)
    found = list(first.values())
    longest = max(map(len, found))
    if longest > MOST_CLAIM_CHARS:
        return Rejection("too_long", longest, MOST_CLAIM_CHARS)
    return found if len(found) <= most else Rejection("too_many", len(found), most)
