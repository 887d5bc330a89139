"""An archive of real pages with their images, made by warcio as a crawler would: textbook, books, encyclopedia, news."""

import gzip
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from tests.html.test_reading_order import CHROME, CNXML, rendered
from tests.real_data import real_data

TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}


class Crawl:
    """Writes responses to an archive of gzip members."""

    def __init__(self, path: Path):
        self.file = path.open("wb")
        self.writer = WARCWriter(self.file, gzip=True)
        self.writer.write_record(self.writer.create_warcinfo_record(path.name, {"software": "tests"}))
        self.pages = 0
        self.images = 0

    def add(self, url: str, body: bytes, kind: str) -> None:
        head = StatusAndHeaders("200 OK", [("Content-Type", kind)], protocol="HTTP/1.1")
        self.writer.write_record(self.writer.create_warc_record(url, "response", payload=io.BytesIO(body), http_headers=head))
        self.pages += kind.startswith("text/html")
        self.images += kind.startswith("image/")

    def add_images(self, folder: Path, url: str) -> None:
        """Add every image under a folder, at the address that the folder has."""
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in TYPES:
                self.add(
                    url + path.relative_to(folder).as_posix().replace(" ", "%20"), path.read_bytes(), TYPES[path.suffix.lower()]
                )

    def close(self) -> None:
        self.file.close()


def textbook(crawl: Crawl) -> None:
    """Add the modules of a textbook, rendered to HTML, and its figures."""
    book = real_data("A_captioned/openstax/sociology-3e")
    for module in sorted(book.glob("modules/*/index.cnxml")):
        content = ET.parse(module).getroot().find(f"{CNXML}content")
        html = CHROME % f"<main>{rendered(content)}</main>"
        crawl.add(f"https://book.example/modules/{module.parent.name}/index.html", html.encode(), "text/html; charset=utf-8")
    crawl.add_images(book / "media", "https://book.example/media/")


def sites(crawl: Crawl) -> None:
    """Add three illustrated books and 85 articles of an encyclopedia, with their images."""
    for folder in (real_data("B2_sites_with_images/gutenberg"), real_data("B2_sites_with_images/wikipedia_raycharles_zim2015")):
        site = f"https://{folder.name.split('_')[0]}.example/"
        for path in sorted([*folder.rglob("*.htm"), *folder.rglob("*.html")]):
            crawl.add(site + path.relative_to(folder).as_posix().replace(" ", "%20"), path.read_bytes(), "text/html")
        crawl.add_images(folder, site)


def articles(crawl: Crawl) -> None:
    """Add 181 articles of news sites and blogs, whose images nobody archived."""
    folder = real_data("B_html/scrapinghub_aeb")
    for key, entry in json.loads((folder / "ground-truth.json").read_text()).items():
        html = gzip.decompress((folder / "html" / f"{key}.html.gz").read_bytes())
        crawl.add(entry.get("url") or f"https://news.example/{key}", html, "text/html")
