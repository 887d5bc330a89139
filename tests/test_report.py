"""report.html is one page that describes a dataset, agrees with its ledger, has the same bytes each time, and is safe to
open."""

import hashlib
import io
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.browser import browsing
from tests.engine.site import download, hashes, ledger, manifest, picture
from tests.servers import LoopbackServer, reply
from vlmdata import recipe as recipes
from vlmdata import run
from vlmdata.audit import audit
from vlmdata.engine.store.open_store import open_store
from vlmdata.report.bins import make, short
from vlmdata.report.charts import charts
from vlmdata.report.examples import choose
from vlmdata.report.frequent_names import Heavy
from vlmdata.report.scan_ledger import scan
from vlmdata.report.tally_numbers import NumberTally
from vlmdata.report.threshold_lines import Line, lines
from vlmdata.report.write import share, write_report
from vlmdata.takedown import forget

pytestmark = pytest.mark.whole

HOSTILE = "</title><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"> {{ 7 * 7 }}"
STEPS = ["text_length", download(), {"resize": {"size": 64, "mode": "keep_ratio"}}, {"image_size": {"min_side": 40}}]
STEPS += [{"image_detail": {"min_entropy": 1.0}}, "dedupe_exact", {"dedupe_phash": {"distance": 4}}]


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    """Build a dataset with every kind of row: sides from 30 to 59, copies, a too short caption, hostile words and addresses."""
    folder = tmp_path_factory.mktemp("report")
    pictures = {f"/{n}.jpg": picture(n, 30 + n) for n in range(30)}
    pictures["/10.jpg?%3Cb%3E%22&'"] = pictures.pop("/10.jpg")
    pictures |= {f"/copy/{n}.jpg": picture(n, 30 + n) for n in (20, 21, 22)}
    with LoopbackServer({p: reply(body, headers={"Content-Type": "image/jpeg"}) for p, body in pictures.items()}) as server:
        rows = [(server.url(path), f"the picture served at {path}") for path in pictures if "?" not in path]
        rows += [(server.url("/10.jpg") + "?<b>\"&'", HOSTILE), ("javascript:alert(1)", "words enough for a caption")]
        rows += [(server.url("/28.jpg") + "?2", "two words"), (server.url("/absent.jpg"), "one that is not there")]
        listing = pa.table({"url": [url for url, _ in rows], "caption": [text for _, text in rows]})
        pq.write_table(listing, folder / "urls.parquet")
        tree = {"source": {"type": "url_list", "path": str(folder / "urls.parquet")}, "steps": STEPS, "part_rows": 8}
        run(recipes.parse(tree), folder / "out", local=True, workers=1)
    return folder / "out"


class Tags(HTMLParser):
    """A parser that collects the elements and attributes of a page as a browser would see them."""

    def __init__(self, page: str):
        super().__init__()
        self.seen: list[tuple[str, dict]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def page_of(out) -> str:
    return (out / "report.html").read_text()


def test_the_manifest_lists_the_report_and_a_second_writing_gives_the_same_bytes(out):
    made = manifest(out)
    data = (out / "report.html").read_bytes()
    assert made["files"]["report.html"] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert write_report(open_store(out), made) == made["files"]["report.html"]


def test_the_report_does_not_contain_the_folder_where_it_was_built(out, tmp_path):
    shutil.copytree(out, tmp_path / "elsewhere")
    before = hashes(out)["report.html"]
    write_report(open_store(tmp_path / "elsewhere"), manifest(out))
    assert hashes(tmp_path / "elsewhere")["report.html"] == before


def test_the_counts_of_the_report_equal_those_of_the_ledger(out):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page_of(out)))
    outcomes = Counter((line["step"], line["reason"]) for line in ledger(out))
    kept = outcomes.pop((None, None))
    assert f"{kept} of {sum(outcomes.values()) + kept} rows kept" in text
    for (_, reason), count in outcomes.items():
        assert f"{reason} {count}" in text
    assert outcomes["image_size", "min_side"] == 10


def test_hostile_words_and_addresses_are_escaped(out):
    tags = Tags(page_of(out))
    assert {tag for tag, _ in tags.seen} & {"script", "iframe", "object", "a", "form", "link", "base"} == set()
    assert not [name for _, attributes in tags.seen for name in attributes if name.startswith("on")]
    sources = [attributes["src"] for _, attributes in tags.seen if "src" in attributes]
    assert sources and all(source.startswith("data:image/webp;base64,") for source in sources)
    assert "&lt;script&gt;" in page_of(out)
    assert "{{ 7 * 7 }}" in page_of(out)
    assert "&lt;b&gt;&#34;&amp;&#39;" in page_of(out)


def test_every_picture_and_chart_has_a_text_description(out):
    tags = Tags(page_of(out)).seen
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in tags if tag == "svg")


def test_the_margin_shows_the_nearest_examples_on_both_sides(out):
    made, store = manifest(out), open_store(out)
    facts = scan(store, made)
    line = next(line for line in lines(facts, made["recipe"]) if line.reason == "min_side")
    assert (line.score, line.at, line.sign, line.rejected) == ("short side", 40.0, "≥", 10)
    rule = ("image_size", "min_side")
    chosen = choose(store, made, {rule: (40.0, line)}, [])
    assert [example.value for example in chosen.rejected[rule]] == [39.0 - n for n in range(10)]
    assert [example.value for example in chosen.kept[rule]][:3] == [40.0, 41.0, 42.0]
    assert all(example.is_kept for example in chosen.kept[rule])


def test_a_rule_that_dropped_nothing_is_found_by_the_name_of_its_parameter(out):
    found = {line.reason: line for line in lines(scan(open_store(out), manifest(out)), manifest(out)["recipe"])}
    assert (found["min_entropy"].score, found["min_entropy"].at) == ("image_detail.entropy", 1.0)
    assert (found["max_aspect"].score, found["max_aspect"].sign) == ("aspect ratio", "≤")
    assert "min_sharpness" not in found  # the value 0 turns it off


def test_copies_are_shown_beside_the_kept_row(out):
    section = page_of(out).split('<section id="copies">')[1].split("</section>")[0]
    images = [attributes["src"] for tag, attributes in Tags(section).seen if tag == "img"]
    assert len(images) >= 6 and max(Counter(images).values()) >= 2


def test_a_step_shows_the_copies_that_it_dropped_itself(tmp_path):
    """One picture occurs four times, twice with the same bytes and twice as near copies. Each step shows its drops beside
    the kept one."""
    first = picture(3, 120)
    near = [io.BytesIO(), io.BytesIO()]
    for out, quality in zip(near, (60, 50), strict=True):
        Image.open(io.BytesIO(first)).save(out, "JPEG", quality=quality)
    lines = []
    for number, body in enumerate([first, first, *(out.getvalue() for out in near)]):
        (tmp_path / f"{number}.jpg").write_bytes(body)
        lines.append(json.dumps({"file_name": f"{number}.jpg", "caption": f"caption {number}"}))
    path = tmp_path / "list.jsonl"
    path.write_text("\n".join(lines))
    source = {"type": "files", "path": str(tmp_path), "table": path.name}
    steps = [{"resize": {"mode": "no", "skip_reencode": True}}, "dedupe_exact", "dedupe_phash"]
    run(recipes.parse({"source": source, "steps": steps}), tmp_path / "out", local=True, workers=1)
    section = page_of(tmp_path / "out").split('<section id="copies">')[1].split("</section>")[0]
    exact, near = section.split("<h3>")[1:]
    assert "1 copy of 1 row<" in exact and "2 copies of 1 row<" in near
    assert exact.count("<img") == 2 and near.count("<img") == 3 and "more</p>" not in section


def test_kept_samples_are_shown_without_the_work_folder(out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "work")
    write_report(open_store(tmp_path / "out"), manifest(out))
    page = page_of(tmp_path / "out")
    assert "work/ no longer exists" in page and "just rejected" not in page
    assert sum(tag == "img" for tag, _ in Tags(page).seen) > 10


def test_drops_of_a_private_step_are_counted_but_not_shown(tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("foulword\n")
    bodies = {f"/{n}.jpg": picture(n) for n in range(4)}
    with LoopbackServer({p: reply(body, headers={"Content-Type": "image/jpeg"}) for p, body in bodies.items()}) as server:
        texts = ["a fine caption", "a fine picture", "foulword of a caption", "another fine one"]
        urls = [server.url(path) for path in bodies]
        pq.write_table(pa.table({"url": urls, "caption": texts}), tmp_path / "urls.parquet")
        steps = [download(), {"resize": {"size": 48}}, {"nsfw_words": {"words": str(words)}}]
        tree = {"source": {"type": "url_list", "path": str(tmp_path / "urls.parquet")}, "steps": steps}
        run(recipes.parse(tree), tmp_path / "out", local=True, workers=1)
    page = page_of(tmp_path / "out")
    assert "nsfw_words" in page and "foulword" not in page


def test_an_empty_dataset_has_a_report(tmp_path):
    with LoopbackServer({}) as server:
        pq.write_table(pa.table({"url": [server.url("/a.jpg")], "caption": ["a b c d"]}), tmp_path / "urls.parquet")
        tree = {"source": {"type": "url_list", "path": str(tmp_path / "urls.parquet")}, "steps": STEPS}
        made = run(recipes.parse(tree), tmp_path / "out", local=True, workers=1)
    assert (made["rows"], made["kept"]) == (1, 0)
    assert "<strong>0</strong> of 1 row kept" in page_of(tmp_path / "out")


def test_documents_show_the_image_and_the_text_that_were_judged(tmp_path):
    bodies = {f"/{n}.jpg": picture(n, 30 + n) for n in (0, 5, 12, 20)}
    with LoopbackServer({p: reply(body, headers={"Content-Type": "image/jpeg"}) for p, body in bodies.items()}) as server:
        images = [f'<p>A paragraph with some words about {p}.</p><img src="{server.url(p)}">' for p in bodies]
        (tmp_path / "page.html").write_text(f"<html><body><article>{''.join(images)}</article></body></html>")
        source = {"type": "html", "path": str(tmp_path / "page.html")}
        steps = [download(), {"resize": {"size": 64, "mode": "no"}}, {"image_size": {"min_side": 40}}]
        tree = {"source": source, "steps": steps, "shards": {"layout": "documents"}}
        made = run(recipes.parse(tree), tmp_path / "out", local=True, workers=1)
    assert made["kept"] == 1
    section = page_of(tmp_path / "out").split('<section id="margins">')[1].split("</section>")[0]
    shapes = [(int(a["width"]), int(a["height"])) for tag, a in Tags(section).seen if tag == "img"]
    assert shapes == [(46, 35), (40, 30), (56, 42), (66, 50)]
    assert "Inside rows that were kept" in page_of(tmp_path / "out")


def test_a_browser_shows_the_report_from_disk_without_any_request(out, tmp_path):
    with browsing(tmp_path) as page:
        page.view(1200, 900)
        page.open(out / "report.html")
        assert [url for url in page.requested() if not url.startswith("data:")] == [(out / "report.html").as_uri()]
        assert page.evaluate("document.title").startswith("Dataset report: ")
        assert "rows kept" in page.evaluate("document.querySelector('h1').innerText")
        loaded = "[...document.images].map(i => (i.loading = 'eager', i.decode().then(() => 1, () => 0)))"
        assert page.evaluate("document.images.length") > 20
        assert page.evaluate(f"Promise.all({loaded}).then(all => all.every(Boolean))", wait=True)
        assert not [e for e in page.events if e.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]


@pytest.mark.parametrize("width", [320, 360, 400, 768])
def test_the_report_fits_the_width_of_a_phone(out, tmp_path, width):
    with browsing(tmp_path) as page:
        page.view(width, 700)
        page.open(out / "report.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        outside = f"[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > {width} + 0.5)"
        assert page.evaluate(f"{outside}.map(e => e.tagName + '.' + e.className)") == []


def test_the_report_has_a_legible_light_and_dark_scheme(out, tmp_path):
    grounds = []
    with browsing(tmp_path) as page:
        for dark in (False, True):
            page.view(1000, 800, dark=dark)
            page.open(out / "report.html")
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            for selector in SELECTORS:
                ink, paper = (page.evaluate(COLOURS.format(selector=selector))[i] for i in (0, 1))
                assert contrast(ink, paper) >= 4.5, (selector, dark, ink, paper)
    assert grounds[0] != grounds[1]


SELECTORS = ("h1", "h1 strong", ".hint", ".reasons", ".line-note", "figure.here .value", "figure.kept .value", ".url")
COLOURS = """(() => {{ let e = document.querySelector('{selector}'); const ink = getComputedStyle(e).color;
while (getComputedStyle(e).backgroundColor === 'rgba(0, 0, 0, 0)') e = e.parentElement;
return [ink, getComputedStyle(e).backgroundColor] }})()"""


def contrast(one: str, other: str) -> float:
    """Return WCAG 2's contrast of two colours given as rgb(r, g, b)."""
    light = []
    for colour in (one, other):
        parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        light.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_a_tally_agrees_with_numpy():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.25, 0.05, 5000), rng.integers(-50, 4096, 5000), [np.nan, np.inf, -0.0, 0.0]])
    tally = NumberTally()
    for piece in np.array_split(values, 7):
        tally.add(piece)
    finite = np.sort(values[np.isfinite(values)])
    assert tally.total == len(finite)
    spread = np.repeat(tally.values(), tally.counts)
    assert np.abs(spread - finite).max() <= np.abs(finite).max() * 2.0**-12
    whole = finite[finite == np.round(finite)]
    assert np.isin(whole, tally.values()).all()
    assert tally.quantile(0.5) == pytest.approx(np.quantile(finite, 0.5), rel=1e-2)


def test_bars_hold_every_value_once_and_end_at_the_threshold_line():
    tally = NumberTally()
    tally.add(np.array([0.279, 0.28, 0.2801, 0.1, 0.5, 0.41]))
    line = Line("score", 0.28, "≥", "s", "min_score", 1)
    bins = make(tally, [line])
    assert bins.count(tally).sum() == 6
    assert np.isclose(bins.edges, 0.28).any()
    split = int(np.argmin(np.abs(bins.edges - 0.28)))
    assert bins.count(tally)[:split].sum() == 2


def test_a_long_tail_is_drawn_on_a_logarithmic_scale():
    tally = NumberTally()
    tally.add(np.concatenate([np.full(900, 10.0), np.full(100, 90_000.0)]))
    assert make(tally, []).is_log
    assert make(tally, []).count(tally).tolist()[0] == 900


def test_frequent_names_are_kept_among_many_rare_ones():
    heavy = Heavy(100)
    for number in range(1000):
        heavy.add([("often.example", "download", 3), (f"{number}.example", None, 1)])
    assert len(heavy.counts) <= 101 and not heavy.is_exact
    assert heavy.largest(1) == [("often.example", Counter(download=3000))]


def test_numbers_are_abbreviated():
    assert [short(v) for v in (0.28, 200, 1200, 35_400, 1_234_567, 0)] == ["0.28", "200", "1,200", "35.4k", "1.23M", "0"]
    assert [share(p, 1000) for p in (0, 1, 31, 620, 999, 1000)] == ["0%", "0.1%", "3.1%", "62%", "99.90%", "100%"]
    assert share(1, 10**6) == "< 0.01%"


def test_forgotten_rows_are_removed_from_the_report(out, tmp_path):
    shutil.copytree(out, tmp_path / "out")
    words = sorted(set(re.findall(r"the picture served at /\d+\.jpg", page_of(out))))
    urls = [line["url"] for line in ledger(out) if line["outcome"] == "kept" and f"/{words[0].split('/')[-1]}" in line["url"]]
    forget(tmp_path / "out", url=urls)
    assert words[0] not in page_of(tmp_path / "out") and words[1] in page_of(tmp_path / "out")
    assert audit(tmp_path / "out", read_bytes=True) == []


def test_a_score_of_rows_dropped_by_another_step_is_shown_without_its_line():
    tally = NumberTally()
    tally.add(np.array([1.0, 2.0, 3.0]))
    facts = SimpleNamespace(scores={"s.words": {("other", "why"): tally}}, rules={}, unsigned=frozenset())
    kept = SimpleNamespace(text_length=NumberTally(), sample_bytes=NumberTally(), images_each=NumberTally())
    drawn = charts(facts, [Line("s.words", 2.0, "≥", "s", "min_words", 0)], kept)
    assert (drawn["decided"], [chart["lines"] for chart in drawn["measured"]]) == ([], [[]])
