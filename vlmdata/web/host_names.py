"""Converts a host name that is not ASCII to the form that a request uses, such as xn--bcher-kva.example for bücher.example.

pydantic's parser of addresses maps the characters as browsers do (UTS 46). It accepts more names than IDNA
2008 allows, so each label is then checked by its rules. The results equal those of the package idna, which a test compares;
idna itself would be one more package in every installation.
"""

import unicodedata

from pydantic import AnyUrl, ValidationError

LABEL = 63  # longest label in ASCII
_DOTS = str.maketrans("。．｡", "...")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_LETTERS = frozenset(("Lu", "Ll", "Lo", "Lm", "Mn", "Mc", "Nd"))
_ALLOWED = frozenset("ßς۽۾་〇")  # RFC 5892, 2.6
_REFUSED = frozenset("ـߺ〮〯〱〲〳〴〵〻")
_BLOCKS = (  # old Hangul jamo, and marks for symbols and music: RFC 5892, 2.9 and 2.4
    *((0x1100, 0x11FF), (0xA960, 0xA97C), (0xD7B0, 0xD7C6), (0xD7CB, 0xD7FB)),
    *((0x20D0, 0x20FF), (0x1D100, 0x1D1FF), (0x1D200, 0x1D24F)),
)


def ascii_host(host: str) -> str | None:
    """Return a host name in lower-case ASCII, or None if IDNA 2008 does not allow it. An empty last label stays."""
    labels = [_ascii_label(label) for label in host.translate(_DOTS).split(".")]
    return None if None in labels or "" in labels[:-1] else ".".join(label for label in labels if label is not None)


def _ascii_label(label: str) -> str | None:
    """Return a label in ASCII, or None. The label may become several, because the mapping of a character may hold a dot."""
    if label.isascii():
        return label.lower() if not label or _is_allowed_in_ascii(label.lower()) else None
    if any(char.isascii() and char.lower() not in _PLAIN for char in label):  # such as @ or /, which would end the host
        return None
    try:
        lower = "".join(map(str.lower, label))  # some capitals of Georgian and Cyrillic are new to the parser
        found = (AnyUrl(f"http://{lower}.a/").host or "").removesuffix(".a")  # with .a, because a number would be an IP address
    except ValidationError:
        return None
    return found if all(map(_is_allowed_in_ascii, found.split("."))) else None


def _is_allowed_in_ascii(label: str) -> bool:
    if not 0 < len(label) <= LABEL:
        return False
    try:
        plain = label[4:].encode().decode("punycode") if label.startswith("xn--") else label
    except UnicodeError:
        return False
    return plain != "" and is_allowed(plain)


def is_allowed(label: str) -> bool:
    """Return whether IDNA 2008 allows a label, which was mapped by UTS 46. Its text direction and joiners are not checked."""
    if label[0] == "-" or label[-1] == "-" or label[2:4] == "--":
        return False
    if unicodedata.category(label[0])[0] == "M":
        return False
    return all(char in _PLAIN or _is_character_allowed(label, place) for place, char in enumerate(label))


def _is_character_allowed(label: str, place: int) -> bool:
    char = label[place]
    code = ord(char)
    before, after = label[place - 1 : place] if place else "", label[place + 1 : place + 2]
    if char in _ALLOWED or code in (0x200C, 0x200D):  # the parser has checked the neighbours of joiners
        return True
    if char == "·":  # in Catalan, between two l
        return before == "l" and after == "l"
    if char == "͵":
        return _is_script(after, "GREEK")
    if char in "׳״":
        return _is_script(before, "HEBREW")
    if char == "・":
        return any(_is_script(one, "HIRAGANA", "KATAKANA", "CJK") for one in label if one != char)
    if 0x660 <= code <= 0x669:
        return not any(0x6F0 <= ord(one) <= 0x6F9 for one in label)
    if 0x6F0 <= code <= 0x6F9:
        return not any(0x660 <= ord(one) <= 0x669 for one in label)
    if char in _REFUSED or any(first <= code <= last for first, last in _BLOCKS):
        return False
    return unicodedata.category(char) in _LETTERS


def _is_script(char: str, *names: str) -> bool:
    return bool(char) and unicodedata.name(char, "").startswith(names)
