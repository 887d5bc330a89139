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

NAMELESS = (None, None, None, None)
NOTHING = (0, False, False)  # what most names say


def _words(names: tuple[str | None, ...]) -> list[str]:
    text = " ".join(filter(None, names))
    lower = text.lower()
    if lower != text:
        lower = _CAMEL.sub(r"\1-\2", text).lower()
    if "has" in lower or "have" in lower or "with" in lower or "no" in lower:
        lower = _ABOUT_OTHERS.sub("", lower)
    if "status-publish" in lower:  # of a post, WordPress names the subjects: `tag-newsletter`, `category-comments`
        lower = " ".join(name for name in lower.split() if not name.startswith(("tag-", "category-")))
    return _WORDS.findall(lower)


@lru_cache(maxsize=1 << 15)
def named(names: tuple[str | None, ...]) -> tuple[int, bool, bool]:
    """Say how loudly class, id and role speak of boilerplate (0 to 3), whether of main content, whether of a caption."""
    words = _words(names)
    if not _OTHERS.isdisjoint(words):
        chrome = 3
    else:
        chrome = 2 if not _STRONG.isdisjoint(words) else int(not _WEAK.isdisjoint(words))
    said = chrome, not _BODY.isdisjoint(words), any("caption" in word for word in words)
    return NOTHING if said == NOTHING else said


@lru_cache(maxsize=1 << 14)
def names_menu(names: tuple[str | None, ...]) -> bool:
    """Say whether class and id call a list a menu."""
    return not _MENU.isdisjoint(_words(names))
