"""Text and images come out in the order in which a page has them: of textbooks whose true order is known, of real pages."""

import html
import re
import xml.etree.ElementTree as ET

import pytest

from tests.real_data import real_data
from vlmdata.html.document import extract

CNXML = "{http://cnx.rice.edu/cnxml}"
TAGS = {
    "para": "p", "title": "h2", "section": "section", "figure": "figure", "caption": "figcaption", "list": "ul", "item": "li",
    "row": "tr", "entry": "td", "note": "div", "exercise": "div", "problem": "div", "solution": "div", "quote": "blockquote",
    "emphasis": "em", "term": "b", "definition": "div", "meaning": "p", "content": "div", "media": "span",
}  # fmt: skip
TABLE_HEAD = {f"{CNXML}title", f"{CNXML}caption"}  # HTML has one caption, before the rows
CHROME = "<nav><a href=/>The home page of the site</a></nav>%s<footer><p>Copyright of the whole site, 2024.</p></footer>"


def rendered(element: ET.Element) -> str:
    """Return a CNXML element as HTML, as a site would show it."""
    tag = element.tag.removeprefix(CNXML)
    tail = html.escape(element.tail or "")
    if tag in ("metadata", "label", "colspec"):
        return tail
    if tag == "image":
        return f'<img src="{html.escape(element.get("src") or "")}">' + tail
    if tag == "table":
        head = "<br>".join(html.escape("".join(child.itertext())) for child in element if child.tag in TABLE_HEAD)
        body = "".join(rendered(child) for child in element if child.tag not in TABLE_HEAD)
        return f"<table><caption>{head}</caption>{body}</table>{tail}"
    inner = html.escape(element.text or "") + "".join(map(rendered, element))
    return (f"<{TAGS[tag]}>{inner}</{TAGS[tag]}>" if tag in TAGS else inner) + tail


def spoken(element: ET.Element) -> list[str]:
    """Return the words and images of a CNXML element in their order; title and caption of a table before its rows."""
    tag = element.tag.removeprefix(CNXML)
    if tag in ("metadata", "label"):
        return []
    if tag == "image":
        return ["IMAGE:" + (element.get("src") or "").rpartition("/")[2]]
    found = re.findall(r"\w+", element.text or "")
    children = sorted(element, key=lambda child: child.tag not in TABLE_HEAD) if tag == "table" else element
    for child in children:
        found += spoken(child) + re.findall(r"\w+", child.tail or "")
    return found


@pytest.mark.parametrize("book", ["openstax/sociology-3e"])
def test_textbook_modules(book):
    modules = sorted(real_data(f"A_captioned/{book}").glob("modules/*/index.cnxml"))
    same = images = 0
    for module in modules:
        content = ET.parse(module).getroot().find(f"{CNXML}content")
        document = extract((CHROME % f"<main>{rendered(content)}</main>").encode(), "https://book.example/m/page.html")
        found = []
        for text, image in zip(document.texts, document.images, strict=True):
            found += ["IMAGE:" + image.url.rpartition("/")[2]] if image else re.findall(r"\w+", text)
        true = spoken(content)
        is_image = re.compile("IMAGE:").match
        assert list(filter(is_image, found)) == list(filter(is_image, true)), module
        images += sum(is_image(word) is not None for word in true)
        same += "".join(found) == "".join(true)  # joined, for `4<sup>th</sup>` is one word on a page
    assert images == 244 and same >= 95, f"{same} of {len(modules)} modules word for word"


def test_books_keep_every_image_and_nearly_every_word():
    for page in sorted(real_data("B2_sites_with_images/gutenberg").rglob("*.htm")):
        source = page.read_bytes()
        document = extract(source, "https://www.gutenberg.org/files/1/1-h/1-h.htm")
        body = re.sub(rb"(?s)<(style|script|head).*?</\1>", b"", source)
        assert sum(image is not None for image in document.images) == len(re.findall(rb"<img", body))
        words = sum(len(text.split()) for text in document.texts if text)
        assert words > 0.94 * len(re.sub(rb"<[^>]+>", b" ", body).split())


def test_encyclopedia_articles_keep_text_and_pictures_and_lose_navigation():
    folder = real_data("B2_sites_with_images/wikipedia_raycharles_zim2015/A")
    document = extract((folder / "Genius_&_Friends.html").read_bytes(), "http://wiki.example/A/x.html")
    text = "\n".join(text for text in document.texts if text)
    assert document.images[1].url == "http://wiki.example/I/m/Ray_Charles_-_Genius_%26_Friends.jpg"
    assert text.startswith("Genius & Friends\nGenius & Friends is a 2005 studio album")
    assert '12. "Surrender to Love" with Laura Pausini' in text
    assert "Notable compilations" not in text and "Volcanic Action of My Soul" not in text
