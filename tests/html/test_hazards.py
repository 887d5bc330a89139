"""Hostile pages are refused or read within a time limit."""

import time

import pytest

from vlmdata.html.document import Limits, extract
from vlmdata.readers import page_rows

pytestmark = pytest.mark.whole

URL = "https://ex.com/"
MANY = 100_000
SET = "<source srcset='" + ",".join(f"a{i}.jpg {i}w" for i in range(1500)) + "'>"


@pytest.fixture(scope="session")
def baseline_s() -> float:
    """CPU seconds for a page of 60,000 paragraphs on this machine."""
    html = b"<p><a href=/x>three linked words</a> of a text</p>" * 60_000
    start = time.thread_time()
    assert extract(html, URL).refused is None
    return time.thread_time() - start


@pytest.mark.parametrize("mode", ["default", "obelics"])
@pytest.mark.parametrize(
    ("page", "outcome"),
    [
        ("<p>words " * 9_000_000, "too_large"),
        ("<div>" * MANY + "x", "too_deep"),
        ("<ul><li>" * MANY + "x", "too_deep"),
        ("<table><tr><td>" * MANY + "x", "too_deep"),
        ("".join(f"<font size={i}>" for i in range(MANY)), "too_deep"),
        ("<div></span>" * MANY, "too_deep"),
        ("".join(f"<font size={i}>" for i in range(900)) + "<p>" * 5000, "too_many_tags"),
        ("<br>" * 400_000, "too_many_tags"),
        ("<p " + " ".join(f"a{i}" for i in range(MANY)) + ">", "too_many_attributes"),
        ("<p " + "".join(f"a{i}='>'/" for i in range(MANY)) + ">", "too_many_attributes"),
        ("<p " + " ".join(f"a{i}" for i in range(MANY)), "too_many_attributes"),
        ("<p " + " ".join(f"a{i}" for i in range(5_000)) + ">", None),
        ("<p data='" + " ".join(f"a{i}>" for i in range(MANY)) + "'>", None),
        ("<p " + "a " * MANY + ">", None),
        ("<script>i<n; " + " ".join(f"a{i}" for i in range(MANY)) + "</script>", None),
        ("<a =" * 500_000, None),
        ("<a='" * 500_000, None),
        ("<!--> <p " + " ".join(f"a{i}" for i in range(MANY)) + "> -->", "too_many_attributes"),
        ("<!-- --!> <p " + " ".join(f"a{i}" for i in range(MANY)) + "> -->", "too_many_attributes"),
        ("<script>i<n='</script><p a='>' " + " ".join(f"a{i}" for i in range(MANY)) + ">", "too_many_attributes"),
        ("<textarea>i<n='</textarea><p a='>' " + " ".join(f"a{i}" for i in range(MANY)) + ">", "too_many_attributes"),
        ("<!doctype a '<a='><p a='>' " + " ".join(f"a{i}" for i in range(MANY)) + ">", "too_many_attributes"),
        ("<p a=x='> " + " ".join(f"a{i}" for i in range(MANY)) + "'", None),
        ("<div><!--</div>-->" * MANY, "too_deep"),
        ("<div><p title='</div>'>" * MANY, "too_deep"),
        ("<div><object></div></object>" * MANY, "too_deep"),
        ("<div><title></div></title>" * MANY, "too_deep"),
        ("<div><svg><![CDATA[</div>]]></svg>" * MANY, "too_deep"),
        ("<form><div></form>" * MANY, "too_deep"),
        ("<div><xmp></div></xmp>" * 20_000, "too_deep"),
        ("<path>" * MANY, "too_deep"),
        ("<math>" + "<td>" * MANY, "too_deep"),
        ("<optgroup>" * MANY, None),
        ("<div><font size=" + "><font size=".join(map(str, range(900))) + "></div>" + "text<br>" * 100_000, None),
        ("".join(f"<body a{i}=b>" for i in range(MANY)), None),
        ("".join(f"<html a{i}=b>" for i in range(1400)), None),
        (("<body " + " ".join(f"a{i}" for i in range(4000)) + ">") * 40, None),
        ("<!-- <script> -->" + "<div>" * MANY + "</script>", "too_deep"),
        ("<div>" + "".join(f"<font size={i}>" for i in range(900)) + "</div>" + "<div>x</div>" * 20_000, "too_many_tags"),
        ("<div>" + "".join(f"<font size={i}>" for i in range(900)) + "</div>" + "<li>x</li>" * 20_000, "too_many_tags"),
        ("<div>" + "".join(f"<i id={i}>" for i in range(900)) + "</u>" * 290_000, None),
        ("<svg>" * MANY, "too_deep"),
        ("<title>" * MANY, None),
        ("<div><font color=red>text</div>" * 20_000, None),
        ("<select>" + "<option>a<option>b" * 20_000, None),
        ("<p>" + "<svg><path d=x /><rect/></svg>" * 20_000, None),
        ("<div>" * 900 + "deep", None),
        ("<img src=a.jpg>" * MANY, None),
        ("\0" * 1_000_000 + "<p>a\0b", None),
        ("<" * 2_000_000, None),
        ("<!--" * 500_000, None),
        ("<a href='" + "x" * 3_000_000, None),
        ("<img srcset='" + "a.jpg 1w," * 100_000 + "'>", None),
        ("<p class='" + "x-" * 500_000 + "'>t", None),
        ("<div>" * 900 + "<p><a href=/x>three linked words</a></p>" * 60_000, None),
        ("<div>" * 900 + "<ul>" + "<li>an item of many words</li>" * 60_000, None),
        ("<figure>" + "<img src=a.jpg><figcaption>caption</figcaption>" * 30_000, None),
        ("<div>" * 900 + "<figcaption>c</figcaption>" * 60_000, None),
        ("<div class=sidebar>" * 900 + "<h1>x</h1>" + "<p>words of a text" * 60_000, None),
        ("<figcaption>" * 900 + "<dt>a<dd>b" * 60_000, None),
        ("<div class=sidebar>" + "<noscript>" * 900 + "<p>words of a text" * 60_000, None),
        ("<footer>" * 300 + "<article>x</article>" * MANY, None),
        ("<picture><img src=a.jpg>" * 900 + "<source src=a>" * 60_000, None),
        ("<picture>" + SET * 50 + "<img src=a.jpg><picture><img src=b.jpg></picture>" * 500, None),
        ("<noscript>" + "<img src=a.jpg>" * MANY, None),
        ("<div>" * 900 + "<article><p>Words of some prose that goes on and on here.</p></article>" * 50_000, None),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,
)
def test_a_hostile_page_is_handled_quickly(page, outcome, mode, baseline_s):
    html = page.encode()
    start = time.thread_time()
    document = extract(html, URL, mode=mode)
    assert document.refused == outcome
    assert time.thread_time() - start < 10 * baseline_s  # both are slow on a slow machine


def test_images_past_the_limit_are_counted():
    document = extract(b"".join(b"<img src=%d.jpg>" % i for i in range(MANY)), URL)
    assert len(document.images) == 1000 and document.left_out == {"images": MANY - 1000}


def test_ten_images_are_read_for_each_image_that_may_be_kept():
    document = extract(b"<img width=1 src=a.jpg>" * 30 + b"<img src=b.jpg>", URL, limits=Limits(max_images=3))
    assert document.images == [] and document.left_out == {"images": 1}


def test_a_long_harmless_page_is_read():
    body = "<p>One paragraph with <b>bold</b> and <a href=/x>linked</a> words in it.</p>" * 20_000
    assert extract(body.encode(), URL).refused is None
    assert extract(body.encode(), URL, limits=Limits(max_tags=50_000)).refused == "too_many_tags"


def test_a_page_that_crashes_the_reader_is_one_dropped_row(monkeypatch):
    def broken(*args, **options):
        raise TypeError("a node of a kind that nobody knew")

    monkeypatch.setattr(page_rows, "extract", broken)
    (row,) = page_rows.page_rows(b"<p>words", URL, id="1", facts={})
    assert (row["reason"], row["texts"], row["images"]) == ("page_unreadable", [], [])
