"""Text and images keep the order of the page, in textbooks with a known order and in real pages."""

import re
import xml.etree.ElementTree as ET

import pytest

from bench.inputs.crawl import CHROME, CNXML, TABLE_HEAD, rendered
from tests.fixtures import Find, fixture
from tests.real_data import real_data
from vlmdata.html.document import extract


def words_and_images(element: ET.Element) -> list[str]:
    """Return the words and images of a CNXML element in reading order. Title and caption of a table precede its rows."""
    tag = element.tag.removeprefix(CNXML)
    if tag in ("metadata", "label"):
        return []
    if tag == "image":
        return ["IMAGE:" + (element.get("src") or "").rpartition("/")[2]]
    found = re.findall(r"\w+", element.text or "")
    children = sorted(element, key=lambda child: child.tag not in TABLE_HEAD) if tag == "table" else element
    for child in children:
        found += words_and_images(child) + re.findall(r"\w+", child.tail or "")
    return found


@pytest.mark.parametrize(("find", "pictures", "least"), [(fixture, 8, 5), (real_data, 244, 95)])
def test_textbook_modules_keep_their_order(find: Find, pictures: int, least: int):
    modules = sorted(find("A_captioned/openstax/sociology-3e").glob("modules/*/index.cnxml"))
    same = images = 0
    for module in modules:
        content = ET.parse(module).getroot().find(f"{CNXML}content")
        document = extract((CHROME % f"<main>{rendered(content)}</main>").encode(), "https://book.example/m/page.html")
        found = []
        for text, image in zip(document.texts, document.images, strict=True):
            found += ["IMAGE:" + image.url.rpartition("/")[2]] if image else re.findall(r"\w+", text)
        true = words_and_images(content)
        is_image = re.compile("IMAGE:").match
        assert list(filter(is_image, found)) == list(filter(is_image, true)), module
        images += sum(is_image(word) is not None for word in true)
        same += "".join(found) == "".join(true)  # joined, because `4<sup>th</sup>` is one word on a page
    assert images == pictures and same >= least, f"{same} of {len(modules)} modules word for word"


@pytest.mark.parametrize(("find", "count"), [(fixture, 2), (real_data, 3)])
def test_books_keep_every_image_and_nearly_every_word(find: Find, count: int):
    pages = sorted(find("B2_sites_with_images/gutenberg").rglob("*.htm"))
    assert len(pages) == count
    for page in pages:
        source = page.read_bytes()
        document = extract(source, "https://www.gutenberg.org/files/1/1-h/1-h.htm")
        body = re.sub(rb"(?s)<(style|script|head).*?</\1>", b"", source)
        assert sum(image is not None for image in document.images) == len(re.findall(rb"<img", body))
        words = sum(len(text.split()) for text in document.texts if text)
        assert words > 0.94 * len(re.sub(rb"<[^>]+>", b" ", body).split())


@pytest.mark.parametrize(
    ("find", "page", "picture", "start", "listed", "linked"),
    [
        (
            fixture,
            "encyclopedia/A/Gulls_&_Friends.html",
            "Gulls_%26_Friends_-_Cover.jpg",
            "Gulls & Friends\nGulls & Friends is a 1998 studio album",
            '4. "It Goes by the Moon" with Tom Weir',
            "Nobody Rows Alone",
        ),
        (
            real_data,
            "wikipedia_raycharles_zim2015/A/Genius_&_Friends.html",
            "Ray_Charles_-_Genius_%26_Friends.jpg",
            "Genius & Friends\nGenius & Friends is a 2005 studio album",
            '12. "Surrender to Love" with Laura Pausini',
            "Volcanic Action of My Soul",
        ),
    ],
)
def test_encyclopedia_articles_keep_text_and_pictures_without_navigation(
    find: Find, page: str, picture: str, start: str, listed: str, linked: str
):
    source = find(f"B2_sites_with_images/{page}").read_bytes()
    document = extract(source, "http://wiki.example/A/x.html")
    text = "\n".join(text for text in document.texts if text)
    assert document.images[1].url == f"http://wiki.example/I/m/{picture}"
    assert text.startswith(start) and listed in text
    assert linked.encode() in source and linked not in text and "Notable compilations" not in text
