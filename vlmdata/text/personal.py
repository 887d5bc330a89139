"""Finds personal data in a text: mail addresses, IP addresses, telephone numbers.

Patterns find candidates, and the words near a candidate help to decide. For example, 192.0.2.44 is an address, but 3.2.1.4 is
an address only near a word such as "server".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Literal, NamedTuple

from vlmdata.text.personal_addresses import find_ips, find_mails
from vlmdata.text.telephones import find_telephones

Kind = Literal["mail", "ip", "telephone"]


class Find(NamedTuple):
    """Personal data of one kind in a text, from the character `start` up to `end` (exclusive)."""

    kind: Kind
    start: int
    end: int


def find_personal(text: str, kinds: Collection[Kind]) -> list[Find]:
    """Return the personal data of these kinds in a text, from left to right, without overlaps."""
    if not _MARKS.search(text):  # nine in ten captions have no such mark
        return []
    if text.isascii():
        return _find(text, kinds)
    plain = text.translate(_PLAIN)
    if not _INVISIBLE.search(plain):
        return _find(plain, kinds)
    positions = [at for at, letter in enumerate(plain) if not _INVISIBLE.match(letter)]
    found = _find(_INVISIBLE.sub("", plain), kinds)
    return [Find(one.kind, positions[one.start], positions[one.end - 1] + 1) for one in found]


def _find(text: str, kinds: Collection[Kind]) -> list[Find]:
    found = sorted((one for kind in kinds for one in _finds(kind, text)), key=lambda one: (one.start, -one.end))
    kept: list[Find] = []
    for one in found:
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept


def _finds(kind: Kind, text: str) -> Iterator[Find]:
    return (Find(kind, start, end) for start, end in _FINDERS[kind](text))


_FINDERS = {"mail": find_mails, "ip": find_ips, "telephone": find_telephones}
_MARKS = re.compile(r"[@＠\d]|[(\[{<]at[)\]}>]|::", re.IGNORECASE)
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)  # characters without width, which can hide addresses
_PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}  # full-width forms
_PLAIN |= {code: ord("0") + int(chr(code)) for code in range(0x660, 0x1E000) if chr(code).isdecimal()}  # digits of all scripts
_PLAIN |= dict.fromkeys((0x2010, 0x2011, 0x2012, 0x2013, 0x2212), ord("-"))
_PLAIN |= dict.fromkeys((0xA0, 0x2007, 0x2009, 0x202F, 0x3000), ord(" "))
"""Maps each character to one character, so that positions stay the same."""
