"""The bytes of a page become an interleaved document."""

import base64

from vlmdata.html.document import Limits, extract

URL = "https://ex.com/d/e/p.html"
PROSE = "This sentence has more than a few words, so that it reads like the prose of an article. "


def read(body: str, head: str = "", **options):
    return extract(f"<html><head>{head}</head><body>{body}</body></html>".encode(), URL, **options)


def parts(document) -> list[str]:
    """Return texts unchanged, and images as their addresses in brackets."""
    pairs = zip(document.texts, document.images, strict=True)
    assert all((text is None) != (image is None) for text, image in zip(document.texts, document.images, strict=True))
    return [text if text is not None else f"[{image.url}]" for text, image in pairs]


def test_text_and_images_alternate_in_reading_order():
    document = read(f"<p>{PROSE}<img src=a.jpg>And more words after it.<p>Last.<img src=/b.png alt=' two  words '>")
    assert parts(document) == [
        PROSE.strip(),
        "[https://ex.com/d/e/a.jpg]",
        "And more words after it.\n\nLast.",
        "[https://ex.com/b.png]",
    ]
    assert document.images[3].alt == "two words"


def test_title_language_base_and_robots_are_read_from_the_head():
    head = "<title> A \n title </title><base href='/x/'><meta name=ROBOTS content='NoAI, noindex'>"
    document = extract(f"<html lang=de-AT><head>{head}</head><body><img src=a.jpg></body>".encode(), URL)
    assert (document.title, document.language, document.robots) == ("A title", "de-AT", ("noai", "noindex"))
    assert parts(document) == ["[https://ex.com/x/a.jpg]"]


def test_the_first_base_counts_anywhere_in_the_page():
    for base in ("base href", "BASE HREF"):
        found = parts(read(f"<p>x</p><{base}='//cdn.org/i/'><base href='/no/'><img src=a.jpg>"))
        assert found[-1] == "[https://cdn.org/i/a.jpg]"


def test_the_sources_of_a_picture_belong_to_its_first_image():
    found = parts(read("<picture><source srcset='big.jpg 2000w'><img src=a.jpg><p>x</p><img src=b.jpg></picture>"))
    assert found == ["[https://ex.com/d/e/big.jpg]", "x", "[https://ex.com/d/e/b.jpg]"]


def test_white_space_collapses_and_no_break_spaces_are_kept():
    assert parts(read("<p>a\xa0b \n c\xa0 \xa0d \u2003e</p>")) == ["a\xa0b c\xa0 \xa0d \u2003e"]


def test_pictures_lazy_images_and_noscript_give_one_image_each():
    body = """
    <picture><source srcset="a.webp 1200w" type="image/webp"><img src="a-small.jpg"></picture>
    <p>one</p>
    <img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=" data-src="b.jpg"><noscript><img src="b.jpg"></noscript>
    <p>two</p>
    <img class="lazy" src="spacer.gif"><noscript><img src="c.jpg"></noscript>
    <p>three</p>
    <img data-src="d-300x200.jpg"><noscript><img src="d-1024x768.jpg"></noscript>"""
    document = read(body)
    assert parts(document)[::2] == [f"[https://ex.com/d/e/{name}]" for name in ("a.webp", "b.jpg", "c.jpg", "d-1024x768.jpg")]
    assert document.images[0].others == ("https://ex.com/d/e/a-small.jpg",)


def test_inline_images_keep_their_bytes_and_beacons_are_dropped():
    body = b"\x89PNG" + bytes(300)
    document = read(
        f'<img src="data:image/png;base64,{base64.b64encode(body).decode()}" width="300px" height=200.5 alt=x>'
        "<img src=https://t.org/pixel width=1 height=1>"
    )
    (image,) = document.images
    assert (image.url, image.data, image.rendered_width, image.rendered_height) == ("data:image/png", body, 300, 200)


def test_a_caption_is_in_the_text_and_on_its_image():
    document = read(f"<p>{PROSE}</p><figure><div><img src=a.jpg></div><figcaption>The <b>old</b> bridge</figcaption></figure>")
    assert document.images[1].caption == "The old bridge"
    assert document.texts[2] == "The old bridge"


def test_lists_tables_and_breaks_keep_their_lines():
    body = (
        f"<p>{PROSE}</p><ol><li>one<ul><li>deep</ul><li>two</ol><ul><li>a<li>b</ul>"
        "<table><tr><th>k<th>v<tr><td>1<td>2</table>"
        "<p>the first line<br>and a second<br><br>And a third.</p><pre>  a\n   b</pre>"
    )
    assert read(body).texts == [
        f"{PROSE.strip()}\n\n1. one\n- deep\n2. two\n\n- a\n- b\n\nk | v\n1 | 2"
        "\n\nthe first line\nand a second\n\nAnd a third.\n\n  a\n   b"
    ]


def test_blocks_split_words_and_inline_elements_do_not():
    body = "<div>foo<span>bar</span> <b>b</b>az\n\t\n  qux<div>inner</div>tail</div>"
    assert read(body).texts == ["foobar baz qux\n\ninner\n\ntail"]


def test_comments_and_other_nodes_split_no_words():
    body = "<?xml version='1.0'?><p>a<?php x ?>b</p><?php y ?><p>c<!-- d -->e<![CDATA[f]]>g</p><!doctype h><?z"
    assert read(body).texts == ["ab\n\nceg"]


def test_hidden_elements_are_not_read():
    hidden = "<p hidden>h</p><p style='display: none'>d</p><div aria-hidden=true>i</div>"
    body = f"<script>s()</script><style>a{{}}</style>{hidden}<template>t</template><p>seen</p>"
    assert read(body).texts == ["seen"]


def test_pages_over_a_limit_are_refused_or_truncated():
    few = Limits(max_bytes=2000, max_images=2)
    assert read("x" * 3000, limits=few).refused == "too_large"
    document = read("<img src=a.jpg><p>t</p><img src=b.jpg><img src=c.jpg><img src=d.jpg>", limits=few)
    assert (len([i for i in document.images if i]), document.left_out) == (2, {"images": 2})


def test_empty_pages_give_empty_documents():
    for page in (b"", b"\x00" * 50, b"<html><frameset><frame src=a></frameset></html>", b"<!---->"):
        document = extract(page, URL)
        assert [t for t in document.texts if t and t.strip("\ufffd\n ")] == [] and document.images == []


def test_captions_without_a_figure_belong_to_the_image_before_them():
    body = (
        f"<p>{PROSE}</p><img src=far.jpg><p>{PROSE} And more.</p><div class=thumb><a href=/x><img src=a.jpg></a>"
        f"<div class=thumbcaption>The old bridge</div></div><p>{PROSE} Still more.</p>"
    )
    far, near = (image for image in read(body).images if image)
    assert (far.caption, near.caption) == (None, "The old bridge")
