"""Drops lines that do not belong to the main content: datelines, bylines, buttons, credits, pointers to other pages."""

from __future__ import annotations

import re

from vlmdata.html.cards import is_prose
from vlmdata.html.layout import HEADINGS, PageBlock, PageLayout
from vlmdata.text.words import count_words

_LOOSE = frozenset(("div", "p", "section", "article", "main", "body", "center", "header", "form", "fieldset"))
_CREDIT_WORDS = 12  # a credit line has fewer words
_CAPTION_WORDS = 60  # a line that is not marked as a caption is one only if it has fewer words
CELLS = frozenset(("td", "th", "dt", "dd"))
_COOKIES = re.compile(
    r"(?=.*\bcookies?\b)"
    r".*\b(?:we use|uses?|accept|agree|consent|continu|policy|privacy|akzept|nutz|utilis|acept|usamos|utiliza)",
    re.IGNORECASE | re.DOTALL,
)
_DATED = re.compile(
    r"\b(?:19|20)\d\d\b|\b\d{1,2}:\d\d\b"
    r"|\b(?:ago|updated?|published|posted|by|photo|image|credit|getty|share|comments?|min(?:utes?)? read)\b",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"\b\d{1,2}[:.h]\d\d\b")
_YEAR = re.compile(r"(?:19|20)\d\d")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b"
)
_DATE = (
    rf"\d{{1,4}}(?:st|nd|rd|th)?|{_MONTH}|mon(?:day)?|tues?(?:day)?|wed(?:nesday)?|thu(?:rs?)?(?:day)?|fri(?:day)?"
    r"|sat(?:urday)?|sun(?:day)?|at|on|[ap]\.?m\.?|[ecmp][sd]?t|gmt|utc|bst|ist"
)
_FURNITURE = re.compile(  # matches a whole line in lower case: a date, a byline or the label of a button
    rf"\W*(?:(?:first |last )?(?:published|updated|posted|modified)\b.*\d.*"
    rf"|(?=\D*\d)(?=.*(?:\b{_MONTH}|\d\d-\d\d))(?:(?:{_DATE})\W+)*(?:{_DATE})"
    r"|advert(?:isement)?|caption|close|facebook|twitter|e-?mail|whatsapp|linkedin|pinterest|share|tags|author|publish date"
    r"|(?:image|photo|slide) \d+ (?:of|/) \d+|(?:read (?:more|also|next)|see also) ?:.*"
    r"|(?:follow (?:us|me|\w+ on)|subscribe|join our|like this (?:story|article|post)|share (?:this|your)|also on"
    r"|download (?:our|the) app)\b.*)\W*"
)


_COMMENTS_WORDS = 4  # the line above the comments has at most this many words
_COMMENTS = re.compile(  # `Comments`, `3 comments`, `Comments (3)`
    r"\W*(\d*)\W*(?:comments?|kommentare?|commentaires?|comentarios?|comentários?|commenti|komentarze|reacties|commentaren"
    r"|yorumlar|комментарии|leave a (?:comment|reply)|schreibe einen kommentar|kommentar schreiben|laisser un commentaire"
    r"|deja un comentario)\W*(\d*)\W*",
    re.IGNORECASE,
)
_CREDIT_WORD = (  # words before the source of a picture
    r"(?:foto(?:s|graf(?:ie|ía)?)?|photos?(?: (?:by|credit))?|bild(?:er|quelle|nachweis)?|image(?:n|m|s)?(?: (?:by|credit))?"
    r"|picture|quelle|source|fuente|fonte|bron|kilde|källa|cr[eé]dito?s|crédito|copyright|zdj(?:ęcie|\.)?|źródło|fotó|forrás"
    r"|kuva|фото|источник|джерело|φωτογραφία|πηγή|ảnh|nguồn|fotoğraf|kaynak|写真|図|图|圖|来源|사진|출처)"
)
_CREDIT = re.compile(  # `(Photo: A. Name / Agency)`, `Source: Agency`, `© A. Name` at the end of a caption
    rf"(?:(?:^|(?<=[.!?…»\"”’);,。！？）」])|[\[(|–—-])\s*(?:{_CREDIT_WORD}\s?[:：/©]|image copyright)"
    r"|(?:^|\s)[\[(]?(?:ⓒ|\(c\))|[\[(]?©|^credit\b\W)[^:!?]{2,80}$",
    re.IGNORECASE,  # `(credit: A. Name)` is kept inside a caption, because open licences require it
)
_CREDIT_SIGN = re.compile("[:：/©ⓒⒸ]|[(][cC][)]|[cC](?i:redit|opyright)")  # every credit has one of these


def without_credit(text: str) -> str:
    """Return a caption without the credit at its end. The result is empty if the caption is only a credit."""
    end = text[-120:] if len(text) < 2000 else ""
    found = _CREDIT.search(end) if _CREDIT_SIGN.search(end) else None
    return text[: len(text) - len(found[0])].rstrip(" \n|–—-,;") if found else text


def drop_furniture(layout: PageLayout, kept: list[bool]) -> None:
    """Drop kept blocks that do not belong to the text, such as bylines and buttons, and the credits at the end of captions."""
    blocks = layout.blocks
    _drop_comments(blocks, kept)
    for i, b in enumerate(blocks):
        if not (kept[i] and b.text) or b.tag in CELLS or b.tag in HEADINGS:
            continue
        if _is_furniture(b.text, b.words):
            kept[i] = False
        elif b.words < _CREDIT_WORDS or _is_caption(layout, i):
            caption = without_credit(b.text)
            if not caption:
                kept[i] = False
            elif _is_caption(layout, i):
                b.text = caption
    _trim(blocks, kept)
    _drop_empty_headings(blocks, kept)
    _drop_repeats(blocks, kept)


def _is_furniture(text: str, words: int) -> bool:
    """Return whether a block is a date, a byline, a cookie notice, or the label of a button."""
    if words < 20 and len(text) < 300 and _FURNITURE.fullmatch(text.lower()):
        return True
    return 15 <= words < 80 and "ookie" in text and bool(_COOKIES.match(text[:1000]))


def _drop_comments(blocks: list[PageBlock], kept: list[bool]) -> None:
    """Drop a line such as `3 comments` and all blocks after it, if at least half of the words are before the line.

    For a line without a number, such as `Comments`, at least four fifths of the words must be before it, because the line may
    be a heading of the text.
    """
    total = sum(b.words for b, keep in zip(blocks, kept, strict=True) if keep)
    before = 0
    for i, b in enumerate(blocks):
        if not (kept[i] and b.text):
            continue
        short = b.words <= _COMMENTS_WORDS and len(b.text) < 100 and b.tag not in CELLS
        found = _COMMENTS.fullmatch(b.text) if short else None
        if found and before >= (total - before) * (1 if found[1] or found[2] else 4):
            kept[i:] = [False] * (len(kept) - i)
            return
        before += b.words


def _is_caption(layout: PageLayout, place: int) -> bool:
    """Return whether the block at `place` is the caption of an image, or the line directly below an image."""
    section = layout.sections[layout.blocks[place].section]
    around = layout.sections[section.parent] if section.parent >= 0 else section
    below = place > 0 and layout.blocks[place - 1].image is not None and layout.blocks[place].words < _CAPTION_WORDS
    return below or section.caption or around.caption or "figure" in (section.tag, around.tag)


def is_dateline(text: str | None) -> bool:
    """Return whether a line is a publication date with a year and a time of day."""
    if not text or len(text) >= 150 or (text[-1] in ".!?" and not text.endswith("m.")):
        return False
    return bool(_CLOCK.search(text) and _YEAR.search(text))


def _drop_empty_headings(blocks: list[PageBlock], kept: list[bool]) -> None:
    """Drop headings that have nothing left below them because the links below them were dropped."""
    gone, ends = False, True  # links below were dropped; no kept block is below, or the next kept block is a heading
    for i in range(len(blocks) - 1, -1, -1):
        b = blocks[i]
        if not kept[i]:
            gone = gone or b.links > 0.5
            continue
        heading = b.tag in HEADINGS and b.words < 25
        if gone and ends and heading:
            kept[i] = False
        else:
            gone, ends = False, heading


def _trim(blocks: list[PageBlock], kept: list[bool]) -> None:
    """Drop short lines, such as bylines, before the first paragraph, and pointers to other pages after the last paragraph."""
    prose = [i for i, b in enumerate(blocks) if kept[i] and b.tag not in HEADINGS and is_prose(b) and not is_dateline(b.text)]
    if not prose:
        return
    for i in range(prose[0]):
        b = blocks[i]
        if not kept[i] or not b.text or b.tag in HEADINGS or b.words >= 20:
            continue
        stub = b.words < 4 and b.text[-1] not in ",.!?:"
        if stub or (b.words < 8 and _DATED.search(b.text)) or is_dateline(b.text):
            kept[i] = False
    _drop_pointers(blocks, kept, prose)
    last = True
    for i in range(len(blocks) - 1, prose[-1], -1):
        b = blocks[i]
        if not kept[i] or b.text is None:
            continue
        stub = b.words < 4 and b.tag in _LOOSE and b.text[-1] not in ".!?:)"
        linked = b.links > (0.3 if last and b.tag != "li" else 0.7)
        if b.tag not in CELLS and (linked or (last and (stub or b.tag in HEADINGS))):
            kept[i] = False
        else:
            last = False


def _drop_pointers(blocks: list[PageBlock], kept: list[bool], prose: list[int]) -> None:
    """Drop short paragraphs with links from the end of a text, up to the last other paragraph. Always keep three paragraphs.

    Do nothing if the text has many links. `prose` holds the indexes of the paragraphs. The indexes of dropped paragraphs are
    removed from `prose`.
    """
    linked = sum(blocks[i].links * blocks[i].words for i in prose)
    if linked > 0.03 * sum(blocks[i].words for i in prose):
        return
    while len(prose) > 3:
        b = blocks[prose[-1]]
        if b.links < 0.15 or b.words >= 40 or b.tag not in _LOOSE:
            return
        kept[prose.pop()] = False


def _drop_repeats(blocks: list[PageBlock], kept: list[bool]) -> None:
    """Drop lines that repeat the title, and long blocks that repeat one of the 24 blocks before them, as in slide shows."""
    seen: dict[str, int] = {}
    title = ""
    for i, b in enumerate(blocks):
        if not (kept[i] and b.text):
            continue
        if b.tag == "h1" and b.words >= 4:
            title = title or b.text
        elif title and title in b.text and b.words <= count_words(title) + 6:
            kept[i] = False
        if b.words >= 15:
            if b.tag != "p" and i - seen.get(b.text, -100) < 25:
                kept[i] = False
            seen[b.text] = i
