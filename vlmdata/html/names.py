"""Classifies elements by class, id and role as boilerplate, main content or the caption of an image."""

from __future__ import annotations

import re
from functools import lru_cache

_WORDS = re.compile(r"[a-z]+")
_CAMEL = re.compile(r"([a-z])([A-Z])")
_ABOUT_OTHERS = re.compile(r"(?<![a-z])(?:has|have|with|without|no)[-_]+(?!print)[a-z]+")  # `has-sidebar` is not a sidebar


def word_set(words: str) -> frozenset[str]:
    """Return the set of words in a space-separated list."""
    return frozenset(words.split())


def byte_words(words: str) -> frozenset[bytes]:
    """Return the set of words in a space-separated list, encoded in UTF-8."""
    return frozenset(words.encode().split())


# Words of class, id and role that mean boilerplate if hyphens or capitals separate them from other words.
_STRONG = word_set(
    "nav toc navbar navigation menu submenu breadcrumb breadcrumbs footer sidebar sidenav share sharing shares sharebar "
    "sharedaddy addthis addtoany pagination pager paging skiplink navbox catlinks noprint complementary contentinfo adsense "
    "dfp jumpto editsection hatnote masthead topbar copyright newsletter"
)
_OTHERS = word_set(  # words for content of other people or other pages; they hardly ever describe a layout
    "comment comments commentlist disqus respond replies related recommended recommendations recommends recommendation "
    "cookie cookies consent gdpr outbrain taboola zergnet kommentar kommentare commentaire commentaires comentario "
    "comentarios commento commenti komentarz komentarze reactie reacties"
)
_WEAK = word_set(
    "subscribe subscription signup promo promos promotion advert adverts advertisement advertising ad ads sponsor "
    "sponsored sponsors popup modal lightbox overlay byline author authors bio tags taglist widget widgets toolbar "
    "screenreader print printonly rating ratings login signin legal disclaimer trending popular utility jetpack banner dialog "
    "alertdialog search tooltip readmore teaser teasers timestamp dateline pubdate published credit meta metadata profile "
    "paywall disclosure disclaimer factbox inset previous prev next likes"
)
_BODY = word_set("article articlebody body content entry main post story text prose mainentity")

_MENU = word_set("nav navbar navigation menu submenu breadcrumb breadcrumbs pagination pager paging share sharing sharebar")

_MEANINGFUL = _STRONG | _OTHERS | _WEAK | _BODY | _MENU

NAMELESS = (None, None, None, None)
NO_MEANING = (0, False, False)  # the result for most names


_LONG = 1_000  # characters of a name or of all names of an element: longer names are not cached
_BODY_BIT, _CAPTION_BIT, _MENU_BIT = 4, 8, 16
KNOWN: dict[tuple[str | None, ...], tuple[int, bool, bool]] = {}  # cache of `classify_names`
_MOST = 1 << 15  # greatest number of entries in `KNOWN`


def _lower(name: str) -> str:
    """Return a name in lower case, with a hyphen before each capital inside a word: `navBar` becomes `nav-bar`."""
    lower = name.lower()
    return lower if lower == name else _CAMEL.sub(r"\1-\2", name).lower()


def _words(name: str) -> list[str]:
    lower = _lower(name)
    if "has" in lower or "have" in lower or "with" in lower or "no" in lower:
        lower = _ABOUT_OTHERS.sub("", lower)
    return _WORDS.findall(lower)


def _meaning(name: str) -> int:
    """Return the meaning of a name as bits: one bit each for content, caption and menu, and two bits for boilerplate.

    The two bits are a number from 0 to 3, as in `classify_names`.
    """
    words = _words(name)
    caption = _CAPTION_BIT if any("caption" in word for word in words) else 0
    if _MEANINGFUL.isdisjoint(words):  # most names
        return caption
    if not _OTHERS.isdisjoint(words):
        chrome = 3
    elif not _STRONG.isdisjoint(words):
        chrome = 2
    else:
        chrome = int(not _WEAK.isdisjoint(words))
    body = 0 if _BODY.isdisjoint(words) else _BODY_BIT
    menu = 0 if _MENU.isdisjoint(words) else _MENU_BIT
    return chrome | body | menu | caption


_cached_meaning = lru_cache(maxsize=1 << 14)(_meaning)


def _meaning_of(name: str) -> int:
    return _cached_meaning(name) if len(name) < _LONG else _meaning(name)


def classify_names(names: tuple[str | None, ...]) -> tuple[int, bool, bool]:
    """Return what the names of an element (class, id, role and itemprop) mean: (boilerplate, content, caption).

    Boilerplate is 0 for no, 1 for perhaps, 2 for surely, and 3 for texts by other people, such as comments. The result is
    stored in the cache `KNOWN`, where callers look before they call this function.
    """
    meaning = NO_MEANING
    joined = _lower(" ".join(filter(None, names)))
    if "caption" in joined or not _MEANINGFUL.isdisjoint(_WORDS.findall(joined)):  # true for few names
        meaning = _classify(names)
    if len(joined) < _LONG:
        if len(KNOWN) >= _MOST:
            KNOWN.clear()
        KNOWN[names] = meaning
    return meaning


def _classify(names: tuple[str | None, ...]) -> tuple[int, bool, bool]:
    chrome = bits = 0
    split = " ".join(filter(None, names)).split()
    post = "status-publish" in split  # WordPress names the subjects of a post: `tag-newsletter`, `category-comments`
    for name in split:
        if post and name.startswith(("tag-", "category-")):
            continue
        meaning = _meaning_of(name)
        chrome = max(chrome, meaning & 3)
        bits |= meaning
    found = chrome, bool(bits & _BODY_BIT), bool(bits & _CAPTION_BIT)
    return NO_MEANING if found == NO_MEANING else found


def names_menu(names: tuple[str | None, ...]) -> bool:
    """Return whether the class or the id of a list says that the list is a menu."""
    return any(_meaning_of(name) & _MENU_BIT for name in " ".join(filter(None, names)).split())
