"""Real archives and pages become documents with exact outcomes and in the true order."""

import functools
import json
import re
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import datasets
import pytest
import yaml
from warcio.archiveiterator import ArchiveIterator

from bench.inputs.crawl import CNXML, Crawl, articles, sites, textbook
from tests.archives import odd_archives
from tests.fixtures import Find, fixture
from tests.html.test_reading_order import words_and_images
from tests.real_data import real_data
from vlmdata import recipe, run
from vlmdata.export_dataset import export
from vlmdata.row import conform
from vlmdata.sources.warc import Warc

pytestmark = pytest.mark.whole

OUTCOMES = dict(map(json.loads, (Path(__file__).parent / "real_archives.jsonl").read_text().splitlines()))
MADE_BY_WGET = {"metadata": 1, "request": 21, "resource": 2, "warcinfo": 1}
VISITS = {  # two visits of GNU Wget to a small site
    "wget/first.warc.gz": {**MADE_BY_WGET, "page": 6, "http_301": 1, "http_404": 4, "media_image": 8, "media_text": 2},
    "wget/second.warc.gz": {**MADE_BY_WGET, "revisit": 18, "http_404": 3},
}
SOUND = (
    "node-warc/books.toscrape.warc",
    "pywb_sample_archive/warcs/iana.warc.gz",
    "resiliparse_tests/warcfile.warc.gz",
    "solrwayback/example_warc/IAH-20080430204825-00000-blackbook.warc.gz",
    "webarchive-discovery/wikipedia-mona-lisa/flashfrozen-jwat-recompressed.warc.gz",
)
WGET_PAGES = {
    "paragraph_quality: min_words": 1,  # the list of links
    "dedupe_page_url: same_page_address": 1,  # crawled again through a redirect
    "image_size: min_side": 1,  # a picture 76 pixels high
}
FRONT_PAGES = {
    "source: empty_page": 1,
    "ingest: not_downloaded": 1,
    "dedupe_page_url: same_page_address": 1,
    "image_url_rules: min_rendered_height": 2,
    "image_url_rules: banned_logo": 1,
    "image_url_rules: min_rendered_width": 1,
    "image_url_frequency: frequent_address": 6,
    "paragraph_quality: max_special": 11,
    "paragraph_quality: min_stop_words": 8,
    "paragraph_quality: min_words": 10,
    "paragraph_repeats: repeated_on_host": 23,
    "document_text: min_images": 51,
    "document_text: max_words": 1,
    "document_text: min_words": 1,
    "dedupe_image_set: same_images": 3,
    "image_format: format_gif": 2,
    "image_size: min_side": 6,
}


def outcomes(path: Path) -> Counter:
    """Return the number of records per outcome: page, a drop reason, `bad_` followed by the problem, or the kind of another
    record."""
    found: Counter = Counter()
    source = Warc(path=str(path))
    for piece in source.pieces():
        for table in source.read_counting(piece, found):
            for row in conform(table).select(["reason", "extra"]).to_pylist():
                bad = row["reason"] == "bad_record" and f"bad_{json.loads(row['extra'])['problem']}"
                found[bad or row["reason"] or "page"] += 1
    return found


@pytest.mark.parametrize(
    ("find", "expected"),
    [
        pytest.param(fixture, VISITS, id="fixture"),
        pytest.param(real_data, OUTCOMES, id="real_data", marks=pytest.mark.slow),
    ],
)
def test_every_record_of_a_real_archive_has_its_known_outcome(find: Find, expected: dict[str, dict[str, int]]):
    folder = find("C_warc")
    assert {name: dict(outcomes(folder / name)) for name in expected} == expected


def test_every_record_of_an_odd_archive_has_its_known_outcome(tmp_path):
    folder = odd_archives.write(tmp_path / "odd")
    expected = {name: outcome for name, (_, outcome) in odd_archives.ALL.items()}
    assert {name: dict(outcomes(folder / name)) for name in expected} == expected


@pytest.mark.parametrize(("find", "name"), [*((fixture, name) for name in VISITS), *((real_data, name) for name in SOUND)])
def test_warcio_counts_as_many_records_in_sound_archives(find: Find, name: str):
    with find(f"C_warc/{name}").open("rb") as file:
        assert sum((VISITS | OUTCOMES)[name].values()) == sum(1 for _ in ArchiveIterator(file))


def test_warcio_counts_as_many_records_in_small_sound_archives(tmp_path):
    folder = odd_archives.write(tmp_path / "odd")
    for name, (_, outcome) in odd_archives.SOUND.items():
        with (folder / name).open("rb") as file:
            assert sum(outcome.values()) == sum(1 for _ in ArchiveIterator(file)), name


def built(source: list[Path], folder: Path, **changes: object) -> dict:
    """Run the pages recipe on archives without the download step, so that images outside the archives are missing."""
    shipped = yaml.safe_load(recipe.locate("pages").read_text())
    shipped["source"]["path"] = [str(path) for path in source]
    shipped["steps"] = [step for step in shipped["steps"] if step != "download"]
    path = folder / "pages.yaml"
    path.write_text(yaml.safe_dump(shipped, sort_keys=False))
    return run(path, folder / "out", overrides=changes, local=True, workers=1)


def drops(made: dict) -> Counter:
    return Counter({f"{line['step']}: {line['reason']}": line["rows"] for line in made["dropped"]})


@pytest.mark.filterwarnings("ignore:.*these rules have no word list and are off")
@pytest.mark.parametrize(
    ("find", "names", "kept", "dropped"),
    [
        pytest.param(fixture, ["wget/first.warc.gz"], 3, WGET_PAGES, id="fixture"),
        pytest.param(real_data, SOUND, 0, FRONT_PAGES, id="real_data", marks=pytest.mark.slow),
    ],
)
def test_each_dropped_page_of_a_real_crawl_has_its_reason(find: Find, names, kept, dropped, tmp_path):
    """OBELICS would keep none of the front pages: link pages, pictures of 125 pixels, one article of 3,527 words."""
    made = built([find(f"C_warc/{name}") for name in names], tmp_path)
    pages = sum((VISITS | OUTCOMES)[name].get(kind, 0) for name in names for kind in ("page", "empty_page"))
    assert (made["rows"], made["kept"]) == (pages, kept)
    assert drops(made) == dropped


@dataclass(frozen=True)
class Source:
    """A group of folders that become one crawl."""

    find: Find
    encyclopedia: str
    news: str
    pages: int
    images: int


SMALL = Source(fixture, "encyclopedia", "articles", 18, 18)
LARGE = Source(real_data, "wikipedia_raycharles_zim2015", "scrapinghub_aeb", 365, 658)


@pytest.fixture(scope="module")
def crawl_of(tmp_path_factory) -> Callable[[Source], Path]:
    @functools.cache
    def crawl_of(source: Source) -> Path:
        path = tmp_path_factory.mktemp("crawl") / "crawl.warc.gz"
        made = Crawl(path)
        textbook(made, source.find("A_captioned/openstax/sociology-3e"))
        sites(made, *(source.find(f"B2_sites_with_images/{name}") for name in ("gutenberg", source.encyclopedia)))
        articles(made, source.find(f"B_html/{source.news}"))
        made.close()
        assert (made.pages, made.images) == (source.pages, source.images)
        return path

    return crawl_of


@pytest.mark.filterwarnings("ignore:.*these rules have no word list and are off")
@pytest.mark.parametrize(
    ("source", "max_words", "kept"),
    [
        pytest.param(SMALL, 2000, 5, id="fixture-2000"),
        pytest.param(SMALL, 200_000, 7, id="fixture-200000"),
        pytest.param(LARGE, 2000, 85, id="real_data-2000", marks=pytest.mark.slow),
        pytest.param(LARGE, 200_000, 142, id="real_data-200000", marks=pytest.mark.slow),
    ],
)
def test_real_pages_become_documents_in_page_order(source: Source, max_words: int, kept: int, crawl_of, tmp_path):
    changes = {"document_text.max_words": max_words, "document_quality.max_words": max_words}
    made = built([crawl_of(source)], tmp_path, **changes)
    others = {"media_image": source.images, "warcinfo": 1}
    assert (made["rows"], made["kept"], made["other_records"]) == (source.pages, kept, others)
    book = source.find("A_captioned/openstax/sociology-3e")
    checked = 0
    for facts in documents(tmp_path / "out"):
        assert all((text is None) != (image is None) for text, image in zip(facts["texts"], facts["images"], strict=True))
        assert not any(a and b for a, b in zip(facts["texts"], facts["texts"][1:], strict=False)), "texts side by side"
        if "book.example" in facts["url"]:
            module = book / "modules" / facts["url"].split("/")[-2] / "index.cnxml"
            content = ET.parse(module).getroot().find(f"{CNXML}content")
            assert content is not None and is_in_order(facts, "".join(words_and_images(content))), module
            checked += 1
    assert checked > kept / 3
    no_image_is_lost(tmp_path)


def no_image_is_lost(folder: Path) -> None:
    """Check that the Parquet export and the dataset loaded by its card have every image, also those of long documents."""
    images = [sum(image is not None for image in facts["images"]) for facts in documents(folder / "out")]
    assert images[0] < max(images)
    export(folder / "out", folder / "parquet")
    loaded = datasets.load_dataset(str(folder / "parquet"), split="train", cache_dir=str(folder / "cache"))
    loaded = loaded.cast_column("images", datasets.List(datasets.Image(decode=False)))
    assert sorted(sum(image is not None for image in row["images"]) for row in loaded) == sorted(images)
    by_card = datasets.load_dataset(str(folder / "out"), split="train", cache_dir=str(folder / "cache"))
    names = [name for name in by_card.column_names if name.endswith(".jpg")]
    for name in names:
        by_card = by_card.cast_column(name, datasets.Image(decode=False))
    assert sorted(sum(row[name] is not None for name in names) for row in by_card) == sorted(images)


def documents(out: Path) -> list[dict]:
    """Return the JSON members of all tars, and check that the images they name are in the same tar."""
    found = []
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            names = set(tar.getnames())
            for name in sorted(names):
                if name.endswith(".json"):
                    facts = json.loads(tar.extractfile(name).read())  # type: ignore[union-attr]
                    own = {f"{facts['key']}.{place['file']}" for place in facts["metadata"] if place}
                    assert own == {one for one in names if one.startswith(facts["key"] + ".") and one != name}
                    found.append(facts)
    return found


def is_in_order(facts: dict, true: str) -> bool:
    """Return whether paragraphs and images appear in this order in the true text. Words are compared without spaces."""
    place = 0
    for text, image in zip(facts["texts"], facts["images"], strict=True):
        for part in (
            [f"IMAGE:{image.rpartition('/')[2]}"] if image else ["".join(re.findall(r"\w+", p)) for p in text.split("\n\n")]
        ):
            place = true.find(part, place) + len(part)
            if place < len(part):
                return False
    return True
