"""Teaser boxes are dropped from an article, and kept if the page consists of them."""

import pytest

from tests.html.pages import FERRY, texts_of

HALF = "".join(f"<p>{text}</p>" for text in FERRY)
OTHER = "The new bridge over the river took nine years, and nobody in the valley remembers why it did."
RELATED = "<div><p>{}</p><p>{} <a href=/b>All about bridges and tunnels of the valley</a></p></div>"


def text_of(body: str) -> str:
    return "\n\n".join(filter(None, texts_of(body)))


@pytest.mark.parametrize(
    "box",
    [
        f"<div><a href=/b>The new bridge</a><p>{OTHER}</p></div>",
        f"<section><img src=b.jpg><h3><a href=/b>The new bridge</a></h3><p>{OTHER}</p></section>",
        f"<div><a href=/m>J. Marten</a><p>{OTHER}</p><a href=/m2>More</a></div>",
        *(
            RELATED.format(title, OTHER)
            for title in ("Auch interessant", "Vous aimerez aussi", "Zobacz także", "Читайте также")
        ),
    ],
)
def test_a_teaser_box_is_dropped(box: str):
    assert text_of(f"<article>{HALF}{box}{HALF}</article>") == "\n\n".join(FERRY * 2)


def test_a_page_of_teaser_boxes_keeps_them():
    boxes = "".join(f"<div><h3><a href=/{i}>The bridge {i}</a></h3><p>{i} {text}</p></div>" for i, text in enumerate(FERRY))
    found = text_of(f"<main><p>{OTHER}</p>{boxes}</main>")
    assert all(text in found for text in FERRY)


def test_a_box_with_a_captioned_picture_is_a_figure():
    figure = (
        "<div><a href=/big>Larger picture</a><figure><img src=a.jpg><figcaption>The green boat.</figcaption></figure></div>"
    )
    assert "The green boat." in text_of(f"<article>{HALF}{figure}{HALF}</article>")


def test_links_outside_paragraphs_are_dropped():
    links = f"<div>{OTHER}<p>{FERRY[1]}</p><a href=/a>All of the ferry</a> | <a href=/b>News</a><p>{FERRY[2]}</p></div>"
    assert text_of(f"<article>{HALF}{links}{HALF}</article>") == "\n\n".join([*FERRY, OTHER, *FERRY[1:3], *FERRY])
