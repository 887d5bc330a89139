"""Lines around and inside a text that do not belong to it are dropped in every language."""

import pytest

from tests.html.pages import read, texts_of
from vlmdata.html.furniture import is_dateline, without_credit

TEXT = [
    "Die Fähre verlässt den steinernen Hafen jeden Morgen um sechs und bringt Mehl, Nägel und Briefe über den See.",
    "Der alte Marten führt ein Buch über jede Fahrt, und das Buch zeigt, dass die Winter früher kälter waren als heute.",
    "Niemand weiß mehr, wer den Rumpf grün gestrichen hat, obwohl drei Familien sagen, es sei einer von ihnen gewesen.",
    "Wenn der Nebel dicht ist, läutet die Glocke der Insel zweimal in der Minute, und die Hunde des Dorfes antworten.",
]
BODY = "".join(f"<p>{text}</p>" for text in TEXT)
FORM = "<form><p>Name (erforderlich)</p><p>Zum Kommentieren bitte alle Felder ausfüllen, die einen Stern haben.</p></form>"
POINTER = "<p>Mehr davon? <a href=/n>Hier geht es zu unserem Rundbrief mit Geschichten</a> aus dem Dorf.</p>"
NOTE = "<p>Dieser Beitrag gibt die Meinung des Autors wieder und nicht notwendig die der ganzen Redaktion des Blattes.</p>"
COOKIES = "<p>Wir nutzen Cookies, damit diese Seite so gut wird, wie sie sein kann; wer bleibt, der akzeptiert sie alle.</p>"
SUMMARY = "Ein Dorf lebt von einem Boot, und das Boot lebt von einem Dorf, das es jedes Jahr neu streicht."


@pytest.mark.parametrize(
    "body",
    [
        f"<div><div>{BODY}</div>{FORM}</div>",
        f"<div><div>{BODY}</div><div>{NOTE}<a href=/b>Alle Beiträge</a></div></div>",
        f"<div>{BODY}<h3>Das könnte Sie auch interessieren</h3><ul><li><a href=/1>Ein anderes Boot im See</a></ul></div>",
        f"<div>{BODY}{POINTER}</div>",
        f"<div>24. März 2004, 19:49 | Genesis{BODY}</div>",
        f"<div>{BODY}<p>Quelle: Landesregierung</p></div>",
        f"<noscript><div>{BODY.replace('</p>', ' ' * 200 + '</p>')}</div></noscript>",
        f"<div>{BODY.replace('Hafen', 'Ha&shy;fen')}</div>",
        f"<div>{BODY}<p>Hier: <a href=/s>mehr zum See</a></p><h3>Der See</h3></div><div>{COOKIES}</div>",
        *(f"<div>{BODY}<h3>{line}</h3><p>{NOTE}</p></div>" for line in ("1 Kommentar", "Comments (1)", "Commentaires")),
        f"<div>{BODY.replace('Hafen', '<ruby>Hafen<rt>hɑːfn</rt></ruby>')}</div>",
    ],
)
def test_only_the_text_is_kept(body: str):
    assert texts_of(body) == ["\n\n".join(TEXT)]


def test_short_lines_between_longer_ones_at_the_end_are_kept():
    lines = "<div>Refrain</div><div>Das Boot ist grün, das Boot ist alt.</div><div>Refrain</div><div>Und es fährt.</div>"
    assert texts_of(f"<div>{BODY}{lines}<div>Tags</div></div>") == [
        "\n\n".join([*TEXT, "Refrain", "Das Boot ist grün, das Boot ist alt.", "Refrain", "Und es fährt."])
    ]


def test_comments_is_a_heading_if_the_text_continues():
    more = "".join(f"<p>{text} Und so weiter.</p>" for text in TEXT)
    assert texts_of(f"<div>{BODY}<h3>Comments</h3>{more}</div>") == [
        "\n\n".join([*TEXT, "Comments", *(f"{text} Und so weiter." for text in TEXT)])
    ]


def test_title_summary_and_picture_before_the_text_are_kept():
    lead = f"<h1>Die Fähre</h1><p class=teaser>{SUMMARY}</p><div>3. Mai 2019, 10:05 Uhr</div><img src=a.jpg>"
    assert texts_of(f"<div><header>{lead}</header><div class=text>{BODY}</div></div>") == [
        f"Die Fähre\n\n{SUMMARY}",
        None,
        "\n\n".join(TEXT),
    ]


def test_a_figure_after_the_text_is_kept():
    figure = "<figure><img src=a.jpg><figcaption>Das grüne Boot am Steg.</figcaption></figure>"
    page = f"<div><div>{BODY}</div><div><a href=/b>Alle Beiträge</a>{NOTE}{figure}</div></div>"
    assert texts_of(page) == ["\n\n".join(TEXT), None, "Das grüne Boot am Steg."]


def test_a_page_without_prose_keeps_its_title_and_picture():
    page = "<img src=l.svg><h1>Two books</h1><img src=a.jpg><ul><li><a href=/1>One</a><li><a href=/2>Two</a></ul>"
    assert texts_of(page) == [None, "Two books", None]


def test_a_form_around_the_whole_page_drops_nothing():
    assert texts_of(f"<form action=/page.aspx><div>{BODY}</div></form>") == ["\n\n".join(TEXT)]


def test_comments_longer_than_a_long_text_are_dropped():
    story = "".join(f"<p>{i}. {text}</p>" for i in range(4) for text in TEXT)
    comments = "".join(f"<div><p>{i}. {text}</p></div>" for i in range(10) for text in TEXT[:2])
    found = texts_of(f"<div><div>{story}</div><div class=comments>{comments}</div></div>")
    assert found == ["\n\n".join(f"{i}. {text}" for i in range(4) for text in TEXT)]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Das grüne Boot. (Foto: Privat)", "Das grüne Boot."),
        ("Das grüne Boot. Quelle: jorisvo / Fotolia.com", "Das grüne Boot."),
        ("Le bateau vert – Photo : Jeanne Doe", "Le bateau vert"),
        ("绿色的船（图）。图：新华社", "绿色的船（图）。"),
        ("The green boat © A. Name / Agency", "The green boat"),
        ("Das grüne Boot© Land/A. Name", "Das grüne Boot"),
        ("The green boat Ⓒ A. Name", "The green boat"),
        ("The green boat (C) A. Name", "The green boat"),
        ("(Image: GETTY)", ""),
        ("The green boat. (credit: Jane Doe/flickr)", "The green boat. (credit: Jane Doe/flickr)"),
        ("Left: the old boat. Right: the new one", "Left: the old boat. Right: the new one"),
        ("The source: a well in the hills", "The source: a well in the hills"),
        ("Photo of a boat, made in 1950", "Photo of a boat, made in 1950"),
    ],
)
def test_a_caption_loses_its_credit(caption: str, expected: str):
    assert without_credit(caption) == expected


def test_the_text_of_a_figure_loses_the_credit_and_the_image_keeps_it():
    figure = "<figure><img src=a.jpg><figcaption>Das grüne Boot. (Foto: Privat)</figcaption></figure>"
    document = read(f"<div>{BODY}{figure}{BODY.replace('See', 'Fluss')}</div>")
    assert document.images[1].caption == "Das grüne Boot. (Foto: Privat)"
    assert document.texts[2].split("\n\n")[0] == "Das grüne Boot."


def test_datelines_are_recognized():
    assert all(
        map(is_dateline, ["24. März 2004, 19:49 | Genesis", "2019年11月20日 14:35", "Updated Nov 19, 2019 at 8:02 a.m."])
    )
    assert not any(
        map(is_dateline, ["It rose at 9:28.", "In May 2019", "1995", "", None, "The train of 9:28 came late in 1995."])
    )
