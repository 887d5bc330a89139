"""Write an archive of real pages with their images by warcio, as a crawler would: textbook, books, encyclopedia, news."""

import gzip
import html
import io
import json
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

CNXML = "{http://cnx.rice.edu/cnxml}"
TAGS = {
    "para": "p", "title": "h2", "section": "section", "figure": "figure", "caption": "figcaption", "list": "ul", "item": "li",
    "row": "tr", "entry": "td", "note": "div", "exercise": "div", "problem": "div", "solution": "div", "quote": "blockquote",
    "emphasis": "em", "term": "b", "definition": "div", "meaning": "p", "content": "div", "media": "span",
}  # fmt: skip
TABLE_HEAD = {f"{CNXML}title", f"{CNXML}caption"}  # HTML allows one caption, before the rows
CHROME = "<nav><a href=/>The home page of the site</a></nav>%s<footer><p>Copyright of the whole site, 2024.</p></footer>"
TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}


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


class Crawl:
    """A writer of responses to an archive of gzip members."""

    def __init__(self, path: Path):
        self.file = path.open("wb")
        self.writer = WARCWriter(self.file, gzip=True)
        self.writer.write_record(self.writer.create_warcinfo_record(path.name, {"software": "tests"}))
        self.pages = 0
        self.images = 0

    def add(self, url: str, body: bytes, kind: str) -> None:
        head = StatusAndHeaders("200 OK", [("Content-Type", kind)], protocol="HTTP/1.1")
        identity = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.pages + self.images} {url}")  # rows are sorted by it
        facts = {"WARC-Record-ID": f"<urn:uuid:{identity}>"}
        record = self.writer.create_warc_record(url, "response", io.BytesIO(body), http_headers=head, warc_headers_dict=facts)
        self.writer.write_record(record)
        self.pages += kind.startswith("text/html")
        self.images += kind.startswith("image/")

    def add_images(self, folder: Path, url: str) -> None:
        """Add every image under a folder, at the address of the folder plus its path."""
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in TYPES:
                self.add(
                    url + path.relative_to(folder).as_posix().replace(" ", "%20"), path.read_bytes(), TYPES[path.suffix.lower()]
                )

    def close(self) -> None:
        self.file.close()


def textbook(crawl: Crawl, book: Path) -> None:
    """Add the modules of an OpenStax textbook, rendered to HTML, and its figures."""
    for module in sorted(book.glob("modules/*/index.cnxml")):
        content = ET.parse(module).getroot().find(f"{CNXML}content")
        assert content is not None
        page = CHROME % f"<main>{rendered(content)}</main>"
        crawl.add(f"https://book.example/modules/{module.parent.name}/index.html", page.encode(), "text/html; charset=utf-8")
    crawl.add_images(book / "media", "https://book.example/media/")


def sites(crawl: Crawl, *folders: Path) -> None:
    """Add the pages of copied sites with their images. The host of each site is `NAME.example`, where NAME is its folder's
    name up to `_`."""
    for folder in folders:
        site = f"https://{folder.name.split('_')[0]}.example/"
        for path in sorted([*folder.rglob("*.htm"), *folder.rglob("*.html")]):
            crawl.add(site + path.relative_to(folder).as_posix().replace(" ", "%20"), path.read_bytes(), "text/html")
        crawl.add_images(folder, site)


def articles(crawl: Crawl, folder: Path) -> None:
    """Add the articles of the article extraction benchmark, from news sites and blogs. Their images were not archived."""
    for key, entry in json.loads((folder / "ground-truth.json").read_text()).items():
        page = gzip.decompress((folder / "html" / f"{key}.html.gz").read_bytes())
        crawl.add(entry.get("url") or f"https://news.example/{key}", page, "text/html")
