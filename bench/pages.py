"""Pages per CPU second and quality of the text of vlmdata, trafilatura and others, on the same pages in one run.

    python -m bench.pages            # needs vlmdata[bench] and the real pages of ../shared/data

The tools take turns on the same bytes for three rounds, and the best round of each counts, so that other load on the machine
affects all of them alike. Text is scored as the article extraction benchmark does (bench/inputs/shingles.py), and on pages in
many languages as trafilatura's own evaluation does (bench/inputs/strings.py).
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import time
from collections.abc import Callable

import trafilatura
from bs4 import BeautifulSoup, Comment
from lxml import html as lxml_html
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding
from resiliparse.parse.html import HTMLTree
from selectolax.lexbor import LexborHTMLParser

from bench.inputs.real_data import ROOT
from bench.inputs.shingles import precision_and_recall
from bench.inputs.strings import score_of_strings
from vlmdata.archives.http_message import parse_response
from vlmdata.archives.read_archive import records, volumes
from vlmdata.html.document import extract
from vlmdata.html.obelics import KEPT, SPECIAL, UNWRAPPED

Page = tuple[bytes, str]  # the bytes that a server sent, and the address
ARCHIVES = (
    "solrwayback/example_warc/IAH-20080430204825-00000-blackbook.warc.gz",
    "pywb_sample_archive/warcs/iana.warc.gz",
    "resiliparse_tests/warcfile.warc.gz",
    "resiliparse_tests/clueweb-quirk.warc.gz",
    "webarchive-discovery/wikipedia-mona-lisa/flashfrozen-jwat-recompressed.warc.gz",
)


def benchmark_pages() -> tuple[list[Page], list[str]]:
    """Return the pages of the article extraction benchmark and their true bodies."""
    folder = ROOT / "B_html" / "scrapinghub_aeb"
    truth = json.loads((folder / "ground-truth.json").read_text())
    pages = []
    for key, entry in truth.items():
        html = gzip.decompress((folder / "html" / f"{key}.html.gz").read_bytes())
        pages.append((html, entry.get("url") or "https://example.org/"))
    return pages, [entry["articleBody"] for entry in truth.values()]


def marked_pages() -> tuple[list[Page], list[dict[str, list[str]]]]:
    """Return the pages of trafilatura's evaluation and, for each, the strings that its text must and must not contain."""
    folder = ROOT / "B_html" / "trafilatura_dev"
    marks = json.loads((folder / "pages.json").read_text())
    return [(gzip.decompress((folder / name).read_bytes()), entry["url"]) for name, entry in marks.items()], [*marks.values()]


def archive_pages() -> list[Page]:
    """Return the HTML pages of the real archives."""
    pages = []
    for name in ARCHIVES:
        for volume in volumes(ROOT / "C_warc" / name):
            for record in records(volume):
                response = parse_response(record.block, max_bytes=10_000_000) if record.kind == "response" else None
                if response and response.status == 200 and response.media_type == "text/html" and len(response.body) > 500:
                    pages.append((response.body, record.url or "https://example.org/"))
    return pages


def ours(page: Page) -> str:
    document = extract(page[0], page[1])
    return "\n\n".join(text for text in document.texts if text)


def ours_obelics(page: Page) -> str:
    document = extract(page[0], page[1], mode="obelics")
    return "\n\n".join(text for text in document.texts if text)


def obelics_in_soup(page: Page) -> str:
    """Apply OBELICS's tag and class rules with BeautifulSoup, in the simplest way."""
    soup = BeautifulSoup(page[0], "html.parser")
    for node in soup.find_all(string=lambda text: isinstance(text, Comment)):
        node.extract()
    for node in soup.select("[class~=footer], [class~=site-info]"):
        node.decompose()
    for node in soup.find_all("br"):
        node.replace_with("\n")
    for node in soup.find_all(list(UNWRAPPED)):
        node.unwrap()
    for node in soup.find_all(True):
        if node.decomposed:
            continue
        names = {node.get("id"), " ".join(node.get("class") or []), node.get("title")}
        kept = re.sub(r"\d", "", node.name) in KEPT or node.name in ("img", "video", "audio")
        if not kept or (node.name == "div" and not names.isdisjoint(SPECIAL)):
            node.decompose()
    return soup.get_text("\n")


def resiliparse_main(page: Page) -> str:
    return extract_plain_text(HTMLTree.parse_from_bytes(page[0], detect_encoding(page[0])), main_content=True)


def trafilatura_default(page: Page) -> str:
    return trafilatura.extract(page[0], url=page[1]) or ""


def trafilatura_no_comments(page: Page) -> str:
    return trafilatura.extract(page[0], url=page[1], include_comments=False) or ""


def trafilatura_fast(page: Page) -> str:
    return trafilatura.extract(page[0], url=page[1], fast=True, include_comments=False) or ""


def lexbor_parse(page: Page) -> str:
    root = LexborHTMLParser(page[0]).root
    return "".join(node.text_content or "" for node in root.traverse(include_text=True) if node.tag == "-text") if root else ""


def resiliparse_parse(page: Page) -> str:
    return "".join(node.value or "" for node in HTMLTree.parse_from_bytes(page[0], "utf-8").document if node.tag == "#text")


def lxml_parse(page: Page) -> str:
    tree = lxml_html.document_fromstring(page[0], parser=lxml_html.HTMLParser(encoding="utf-8"))
    return "".join(tree.itertext())


EXTRACTORS: dict[str, Callable[[Page], str]] = {
    "vlmdata": ours,
    "vlmdata, mode obelics": ours_obelics,
    "trafilatura": trafilatura_default,
    "trafilatura, no comments": trafilatura_no_comments,
    "trafilatura, fast, no comments": trafilatura_fast,
    "resiliparse, main content": resiliparse_main,
    "OBELICS's rules in BeautifulSoup": obelics_in_soup,
}
PEERS = ("trafilatura", "trafilatura, no comments", "trafilatura, fast, no comments", "resiliparse, main content")
PARSERS: dict[str, Callable[[Page], str]] = {
    "selectolax (lexbor)": lexbor_parse,
    "resiliparse": resiliparse_parse,
    "lxml (libxml2)": lxml_parse,
}


def measured(tools: dict[str, Callable[[Page], str]], pages: list[Page], rounds: int = 3) -> dict[str, float]:
    """Return each tool's pages per CPU second in its best round."""
    best = dict.fromkeys(tools, 0.0)
    for _ in range(rounds):
        for name, tool in tools.items():
            start = time.process_time()
            for page in pages:
                tool(page)
            best[name] = max(best[name], len(pages) / (time.process_time() - start))
    return best


def strings(tools: dict[str, Callable[[Page], str]]) -> None:
    """Print quality and speed on the pages of trafilatura's evaluation. Our rules were chosen on the first half of these
    pages."""
    pages, marks = marked_pages()
    halves = [hashlib.sha256(page[1].encode()).digest()[0] & 1 for page in pages]
    speeds = measured(tools, pages)
    print(
        f"\n{f'strings of {len(pages)} pages':<36}{'precision':>12}{'recall':>10}{'F1':>8}{'F1 of halves':>16}{'pages/s':>10}"
    )
    for name, tool in tools.items():
        texts = [tool(page) for page in pages]
        scores = score_of_strings(texts, marks)
        parts = []
        for half in (0, 1):
            own = [i for i, number in enumerate(halves) if number == half]
            parts.append(score_of_strings([texts[i] for i in own], [marks[i] for i in own])[2])
        print(
            f"{name:<36}{scores[0]:>12.3f}{scores[1]:>10.3f}{scores[2]:>8.3f}{parts[0]:>10.3f}{parts[1]:>6.3f}{speeds[name]:>10.0f}"
        )


def images_and_words(pages: list[Page]) -> None:
    """Print the number of images and words that the two modes find in the same pages."""
    print(f"\n{'mode':<12}{'pages with an image':>22}{'images':>10}{'words':>12}")
    for mode in ("default", "obelics"):
        found = [extract(html, url, mode=mode) for html, url in pages]  # type: ignore[arg-type]
        images = [sum(image is not None for image in document.images) for document in found]
        words = sum(len(text.split()) for document in found for text in document.texts if text)
        print(f"{mode:<12}{sum(count > 0 for count in images):>22}{sum(images):>10}{words:>12}")


def main() -> None:
    pages, truth = benchmark_pages()
    archived = archive_pages()
    for title, tools, base in (("parse and visit every text", PARSERS, None), ("extract", EXTRACTORS, "trafilatura")):
        print(f"\n{title:<36}{'benchmark pages/s':>20}{'archive pages/s':>18}{'times trafilatura':>20}")
        speeds, archive_speeds = measured(tools, pages), measured(tools, archived)
        for name in tools:
            ratio = f"{speeds[name] / speeds[base]:.1f}, {archive_speeds[name] / archive_speeds[base]:.1f}" if base else ""
            print(f"{name:<36}{speeds[name]:>20.0f}{archive_speeds[name]:>18.0f}{ratio:>20}")
    print(f"\n{'text of ' + str(len(pages)) + ' articles':<36}{'precision':>12}{'recall':>10}{'F1':>8}")
    for name, tool in EXTRACTORS.items():
        scores = precision_and_recall([(true, tool(page)) for true, page in zip(truth, pages, strict=True)])
        print(f"{name:<36}{scores[0]:>12.3f}{scores[1]:>10.3f}{scores[2]:>8.3f}")
    strings({name: EXTRACTORS[name] for name in ("vlmdata", *PEERS)})
    images_and_words(pages + archived)


if __name__ == "__main__":
    main()
