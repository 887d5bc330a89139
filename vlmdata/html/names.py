"""What an element's class, id and role say about it: boilerplate, main content, the caption of an image."""

from __future__ import annotations

import re
from functools import lru_cache

_WORDS = re.compile(r"[a-z]+")
_CAMEL = re.compile(r"([a-z])([A-Z])")
_ABOUT_OTHERS = re.compile(r"(?<![a-z])(?:has|have|with|without|no)[-_]+(?!print)[a-z]+")  # `has-sidebar` names no sidebar


def word_set(words: str) -> frozenset[str]:
    """Return the words of a list written as one text."""
    return frozenset(words.split())


def byte_words(words: str) -> frozenset[bytes]:
    """Return the words of a list written as one text, in UTF-8."""
    return frozenset(words.encode().split())


# Words of class, id and role that mean boilerplate wherever they stand alone between hyphens or capitals.
_STRONG = word_set(
    "nav toc navbar navigation menu submenu breadcrumb breadcrumbs footer sidebar sidenav share sharing shares sharebar "
    "sharedaddy addthis addtoany pagination pager paging skiplink navbox catlinks noprint complementary contentinfo adsense "
    "dfp jumpto editsection hatnote masthead topbar copyright newsletter"
)
_OTHERS = word_set(  # what others say, and what belongs to other pages: these words hardly ever say how a page is laid out
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

_TELLING = _STRONG | _OTHERS | _WEAK | _BODY | _MENU

NAMELESS = (None, None, None, None)
NOTHING = (0, False, False)  # what most names say


_LONG = 1_000  # characters of a name or of all names of an element: such are not kept for the next element
_BODY_BIT, _CAPTION_BIT, _MENU_BIT = 4, 8, 16
KNOWN: dict[tuple[str | None, ...], tuple[int, bool, bool]] = {}
_MOST = 1 << 15


def _lower(name: str) -> str:
    """Return a name in lower case, its capitals parted from what stands before them: `navBar` is `nav-bar`."""
    lower = name.lower()
    return lower if lower == name else _CAMEL.sub(r"\1-\2", name).lower()


def _words(name: str) -> list[str]:
    lower = _lower(name)
    if "has" in lower or "have" in lower or "with" in lower or "no" in lower:
        lower = _ABOUT_OTHERS.sub("", lower)
    return _WORDS.findall(lower)


def _meaning(name: str) -> int:
    """Return what one name means: how loudly it speaks of boilerplate (0 to 3), and a bit each for content, caption, menu."""
    words = _words(name)
    caption = _CAPTION_BIT if any("caption" in word for word in words) else 0
    if _TELLING.isdisjoint(words):  # as most do
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


_kept_meaning = lru_cache(maxsize=1 << 14)(_meaning)


def _meaning_of(name: str) -> int:
    return _kept_meaning(name) if len(name) < _LONG else _meaning(name)


def named(names: tuple[str | None, ...]) -> tuple[int, bool, bool]:
    """Say how loudly class, id and role speak of boilerplate (0 to 3), whether of main content, whether of a caption.

    Look into `KNOWN` first: what was said stands there.
    """
    said = NOTHING
    joined = _lower(" ".join(filter(None, names)))
    if "caption" in joined or not _TELLING.isdisjoint(_WORDS.findall(joined)):  # few say anything
        said = _said(names)
    if len(joined) < _LONG:
        if len(KNOWN) >= _MOST:
            KNOWN.clear()
        KNOWN[names] = said
    return said


def _said(names: tuple[str | None, ...]) -> tuple[int, bool, bool]:
    chrome = bits = 0
    split = " ".join(filter(None, names)).split()
    post = "status-publish" in split  # for a post, WordPress names the subjects: `tag-newsletter`, `category-comments`
    for name in split:
        if post and name.startswith(("tag-", "category-")):
            continue
        meaning = _meaning_of(name)
        chrome = max(chrome, meaning & 3)
        bits |= meaning
    said = chrome, bool(bits & _BODY_BIT), bool(bits & _CAPTION_BIT)
    return NOTHING if said == NOTHING else said


def names_menu(names: tuple[str | None, ...]) -> bool:
    """Say whether class and id call a list a menu."""
    return any(_meaning_of(name) & _MENU_BIT for name in " ".join(filter(None, names)).split())
