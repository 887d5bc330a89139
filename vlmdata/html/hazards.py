"""Pages that would cost a parser too much, found before it sees them.

A tree builder takes quadratic time on deep nesting and on the attributes of one tag, and copies every open formatting element
into each paragraph, so that one kilobyte of tags can ask for a gigabyte of tree. Measured with lexbor: 60,000 nested elements
take 3 s, 50,000 attributes 20 s, 300 unclosed `<font>` and 3,000 `<p>` make 900,000 nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vlmdata.html.cut import cut_out, cut_out_raw
from vlmdata.html.names import word_set

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]*)")
_OPEN_TAG = re.compile(r"""<[a-zA-Z](?:[^>=]++|=[ \t\n\r\f]*+(?:"[^"]*+"|'[^']*+')?+)*+""")
_VALUE = re.compile(r"""=[ \t\n\r\f]*+(?:"[^"]*+"|'[^']*+'|[^ \t\n\r\f>]*+)""")
_FORMATTING = word_set("a b big code em font i nobr s small strike strong tt u")
# Elements that never nest in themselves for long: empty ones, and those whose end tag is optional.
_FLAT = word_set(
    "area base br col embed hr img input link meta param source track wbr p li dt dd option optgroup tr td th thead tbody "
    "tfoot colgroup html head body rp rt path circle rect use g svg line polygon script style"
)
_FEW = 3000  # tags of a page that cannot do harm whatever they are


@dataclass(frozen=True)
class Limits:
    """What one page may cost."""

    max_bytes: int = 10_000_000
    max_tags: int = 300_000
    max_attributes: int = 5_000  # of one tag
    max_depth: int = 1_000  # open elements; Chrome flattens past 512
    max_images: int = 1_000  # the first are kept, the others counted
    max_data_bytes: int = 5_000_000  # of one inline image


def hazard(text: str, limits: Limits) -> str | None:
    """Return why a page must not be parsed (`too_many_tags`, `too_many_attributes`, `too_deep`), or None."""
    if _has_crowded_tag(text, limits.max_attributes):
        return "too_many_attributes"
    if text.count("<") < _FEW:
        return None
    depth = clones = formatting = 0
    opened: dict[str, int] = {}
    for tags, match in enumerate(_TAG.finditer(cut_out_raw(text)), 1):
        name = match[2].lower()
        if name in _FLAT:
            clones += formatting if name == "p" and not match[1] else 0
        elif not match[1]:
            opened[name] = opened.get(name, 0) + 1
            depth += 1
            formatting += name in _FORMATTING
        elif opened.get(name):
            opened[name] -= 1
            depth -= 1
            formatting -= name in _FORMATTING
        if depth > limits.max_depth:
            return "too_deep"
        if tags + clones > limits.max_tags:
            return "too_many_tags"
    return None


def _has_crowded_tag(text: str, most: int) -> bool:
    """Say whether some tag has more than so many attributes of different names. Linear in the text."""
    if not any(_long_tags(text, most)):
        return False
    markup = cut_out_raw(cut_out(text, "<!--", "-->"))  # most long ones are data in a script, or one long value
    return any(len(set(_VALUE.sub(" ", tag).replace("/", " ").lower().split())) > most + 1 for tag in _long_tags(markup, most))


def _long_tags(text: str, most: int) -> Iterator[str]:
    if len(text) > 2 * most:  # an attribute takes two characters or more
        yield from (tag[0] for tag in _OPEN_TAG.finditer(text) if tag.end() - tag.start() > 2 * most)
