"""Where a text holds what belongs to a person: addresses of mail and network, telephone numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal, NamedTuple

Kind = Literal["mail", "ip", "telephone"]

_MAIL = re.compile(
    r"(?<![\w.+-])(?:mailto:)?[\w.+-]{1,64}\s?(?:@|\(at\)|\[at\])\s?(?:[\w-]{1,63}(?:\.|\s?\(dot\)\s?|\s?\[dot\]\s?)){1,5}[A-Za-z]{2,24}(?![\w-])"
)
_IP4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IP6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|\d{1,3}(?:\.\d{1,3}){3})?(?:%\w+)?(?![\w:])")
_DIGIT = r"(?:[ \u00a0./\-]{0,2}\(?\d\)?)"
_ANNOUNCED = r"tel|phone|telephone|mobile|mob|cell|fax|call|text|whatsapp|telefon|t[ée]l|tel[ée]fono|ph"
_TELEPHONE = re.compile(
    rf"(?<![\w+])\+\s?[1-9]{_DIGIT}{{6,14}}(?!\w)"  # a plus and a country
    rf"|(?<![\w.])00[1-9]{_DIGIT}{{8,13}}(?!\w)"
    rf"|(?<!\w)\((?:\d{{3}}|0\d{{1,5}})\)\s?\d{_DIGIT}{{5,8}}(?!\w)"  # brackets around an area
    rf"|(?<!\w)(?i:{_ANNOUNCED})\b[.:]*\s{{0,2}}(?:us\s|no\.?\s|at\s)?\+?\(?\d{_DIGIT}{{6,14}}(?!\w)"
    r"|(?<![\w.-])(?:1[ .-])?[2-9]\d{2}([ .-])[2-9]\d{2}\1\d{4}(?![\w-]|\.\d)"  # North America's 3-3-4
)


class Find(NamedTuple):
    """What was found, and where: characters `start` to `end`."""

    kind: Kind
    start: int
    end: int


def find_personal(text: str, kinds: Collection[Kind]) -> list[Find]:
    """Return what a text holds of these kinds, from left to right, none overlapping another."""
    if not _MARKS.search(text):  # nine in ten captions
        return []
    found = sorted((one for kind in kinds for one in _FINDERS[kind](text)), key=lambda one: (one.start, -one.end))
    kept: list[Find] = []
    for one in found:
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
    return kept


def _mails(text: str) -> Iterator[Find]:
    return (Find("mail", *match.span()) for match in _MAIL.finditer(text))


def _addresses(text: str) -> Iterator[Find]:
    for match in _IP4.finditer(text):
        if _is(IPv4Address, match[0]):
            yield Find("ip", *match.span())
    for match in _IP6.finditer(text):
        if any(map(str.isdigit, match[0])) and match[0].count(":") > 1 and _is(IPv6Address, match[0]):
            yield Find("ip", *match.span())


def _is(kind: type, text: str) -> bool:
    try:
        kind(text)
    except AddressValueError:
        return False
    return True


def _telephones(text: str) -> Iterator[Find]:
    for match in _TELEPHONE.finditer(text):
        if 7 <= sum(map(str.isdigit, match[0])) <= 15:  # ITU E.164: at most 15
            yield Find("telephone", *match.span())


_MARKS = re.compile(r"[@\d]|[(\[]at[)\]]|::")
_FINDERS = {"mail": _mails, "ip": _addresses, "telephone": _telephones}
