"""Results equal those observed with the released code of OBELICS, flaws included."""

import pytest

from vlmdata.html.document import extract

URL = "https://ex.com/d/e/p.html"
U = "https://x.com/a.jpg"
IMAGE = ([None], [U])
LOST: tuple[list, list] = ([], [])


def read(body: str) -> tuple[list, list]:
    document = extract(f"<html><body>{body}</body></html>".encode(), URL, mode="obelics")
    return document.texts, [image and image.url for image in document.images]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"<p><img src={U}></p>", IMAGE),
        (f"<div><img src={U}></div>", IMAGE),
        (f"<a href=x><img src={U}></a>", IMAGE),
        (f"<figure><img src={U}></figure>", LOST),
        (f"<figure><div><img src={U}></div></figure>", LOST),
        (f"<picture><img src={U}></picture>", LOST),
        (f"<noscript><img src={U}></noscript>", LOST),
        (f"<ul><li><img src={U}></li></ul>", LOST),
        (f"<table><tr><td><img src={U}></td></tr></table>", LOST),
        ('<p><img src="https://x.com/a,b.jpg"></p>', LOST),
        ('<p><img srcset="https://x.com/a.jpg 1x, https://x.com/b.jpg 2x"></p>', LOST),
        (f'<p><img src="data:image/gif;base64,AAAA" data-src={U}></p>', IMAGE),
        ('<p><img src="../img/a.jpg"></p>', ([None], ["https://ex.com/img/a.jpg"])),
        ('<p><img src="img/a.jpg"></p>', ([None], ["https://ex.com/img/a.jpg"])),
        ('<base href="https://b.org/"><p><img src="img/a.jpg"></p>', ([None], ["https://ex.com/img/a.jpg"])),
        ('<p><img src="//x.com/a.jpg"></p>', ([None], ["http://x.com/a.jpg"])),
        ("<p>foo<span>bar</span> baz</p>", (["foobar baz"], [None])),
        ("<blockquote><p>a</p></blockquote><p>b</p>", (["a\n\nb"], [None])),
        ("<pre><code>x</code></pre>", LOST),
        ("foo<p> </p>bar", (["foobar"], [None])),
        ("foo<br><br>bar<br class=x>baz", (["foo\n\nbarbaz"], [None])),
        ("<div class=update>a<span>b</span><p>c</p></div>d", (["c\n\nd"], [None])),
        ("<div id=menu>a</div><div class='x footer'>b</div><p>c</p>", (["c"], [None])),
        ("a<a class=more-link>more</a>b", (["a END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED b"], [None])),
        ("<p>x <video src=a.mp4></video> y</p>", (["x y"], [None])),
        (f"<p>a</p><img src={U}><!-- <p>c</p> --><div>b</div>", (["a", None, "b"], [None, U, None])),
        (
            "<?xml version='1.0'?><p>a</p><?php x ?><p>b<?y?>c</p><svg><?z?></svg><![CDATA[d]]><!e><!doctype f>",
            (["a\n\nbc"], [None]),
        ),
        ("<?php x ?>", LOST),
    ],
)
def test_results_equal_the_observed_cases(body, expected):
    assert read(body) == expected


def test_sizes_and_alt_are_kept():
    document = extract(f'<p><img src={U} alt="An alt" width="300px" height=2.5e2>'.encode(), URL, mode="obelics")
    (image,) = document.images
    assert (image.alt, image.rendered_width, image.rendered_height) == ("An alt", 300, 250)


def test_impossible_sizes_and_addresses_are_ignored():
    page = f"<p><img src={U} width={'9' * 400} height=99999999999px><img src=b.jpg>a".encode()
    document = extract(page, "http://[x", mode="obelics")
    assert document.texts == [None, "a"]
    assert (document.images[0].rendered_width, document.images[0].rendered_height) == (None, None)


def test_many_texts_are_joined_in_linear_time():
    document = extract(b"<body>" + b"<div>word</div>" * 30_000, URL, mode="obelics")
    assert document.texts == ["\n".join(["word"] * 30_000)]
