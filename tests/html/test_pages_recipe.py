"""The pages recipe, run on archives, writes a dataset that other readers load, and loses no row."""

import io
import json
import tarfile

import datasets
import pyarrow.parquet as pq
import pytest
import webdataset
import yaml
from PIL import Image

from bench.inputs.archives import gz, http, warc
from tests.engine.site import download, picture
from vlmdata import recipe, run
from vlmdata.demo.recipe import HERE
from vlmdata.show import summary

pytestmark = pytest.mark.whole

STORY = [
    "The river rose by two metres in the night, and by the morning the lower town of {n} stood under water.",
    "Nobody was hurt, because the mayor of {n} had ordered the evacuation of the quarter on the evening before.",
    "Repairs of the old bridge at {n} will take until the autumn, as the engineers of the county said on Monday.",
]
CHROME = "<nav><a href=/>All the news</a></nav>{}<footer><p>This is what the Valley Paper says on every page.</p></footer>"
LINE = "<p>We are always glad to hear from you, so write to us about what you have seen.</p>"


def page(number: int, images: str) -> bytes:
    texts = [text.format(n=f"place {number}") for text in STORY]
    story = f"<p>{texts[0]}</p>{images}<p>{texts[1]}</p><p>{texts[2]}</p>{LINE}"
    body = CHROME.format(f"<article><h1>The flood at the place {number}</h1>{story}</article>")
    return warc("response", f"http://paper.example/{number}", http(body.encode()))


def archive(folder) -> None:
    records = []
    for number in range(12):
        shown = {9: "<img src=/small.jpg>", 10: "<img src=/logo.jpg>", 11: ""}.get(number)
        images = f"<img src=/{number}.jpg alt='The flood {number}'><img src=/shared.jpg>" if shown is None else shown
        records.append(page(number, images))
        records.append(warc("response", f"http://paper.example/{number}.jpg", http(picture(number, 240), "image/jpeg")))
    records.append(records[0])  # the same page again
    records.append(warc("response", "http://paper.example/shared.jpg", http(picture(99, 240), "image/jpeg")))
    records.append(warc("response", "http://paper.example/small.jpg", http(picture(98, 100), "image/jpeg")))
    (folder / "crawl.warc.gz").write_bytes(gz(*records) + b"\x1f\x8b\x08broken")


def test_the_pages_recipe_builds_documents_that_other_readers_load(tmp_path):
    archive(tmp_path)
    shipped = yaml.safe_load(recipe.locate("pages").read_text())
    shipped["source"]["path"] = str(tmp_path / "*.warc.gz")
    shipped["steps"] = [download() if step == "download" else step for step in shipped["steps"]]
    path = tmp_path / "pages.yaml"
    path.write_text(yaml.safe_dump(shipped, sort_keys=False))
    made = run(path, tmp_path / "out", overrides={"image_url_frequency.max_count": 8}, local=True, workers=1)
    ledger = pq.read_table(tmp_path / "out" / "ledger").to_pylist()
    assert made["rows"] == len(ledger) == 14
    assert made["other_records"] == {"media_image": 14} and "records produce no row: media_image 14" in summary(made, "out")
    assert "Records that produce no row: media_image 14" in (tmp_path / "out" / "report.html").read_text()
    reasons = sorted((line["step"], line["reason"]) for line in ledger if line["outcome"] == "dropped")
    assert reasons == [
        ("dedupe_page_url", "same_page_address"),
        ("document_text", "min_images"),
        ("image_size", "min_side"),
        ("image_url_rules", "banned_logo"),
        ("source", "bad_record"),
    ]
    tars = sorted(str(tar) for tar in (tmp_path / "out").glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("pil"))
    assert made["kept"] == len(samples) == 9
    for sample in samples:
        facts = sample["json"]
        number = facts["url"].rpartition("/")[2]
        texts = [text.format(n=f"place {number}") for text in STORY]
        assert facts["texts"] == [f"The flood at the place {number}\n\n{texts[0]}", None, f"{texts[1]}\n\n{texts[2]}"]
        assert facts["images"] == [None, f"http://paper.example/{number}.jpg", None]
        assert facts["metadata"][1]["alt"] == f"The flood {number}"
        assert "glad to hear" not in str(facts["texts"]) and "every page" not in str(facts["texts"])
        assert "shared" not in str(facts["images"]), "an address in nine documents is no picture of any"
        assert sample["0.jpg"].size == (320, 240)
    _read_by_datasets(tars, tmp_path)


def _read_by_datasets(tars: list[str], folder) -> None:
    loaded = datasets.load_dataset("webdataset", data_files=tars, split="train", cache_dir=str(folder / "cache"))
    assert len(loaded) == 9 and all(row["0.jpg"].size == (320, 240) for row in loaded)
    with tarfile.open(tars[0]) as tar:
        names = tar.getnames()
        assert {name.partition(".")[2] for name in names} == {"0.jpg", "json"}
        member = tar.extractfile(names[0])
        assert member and Image.open(io.BytesIO(member.read())).format == "JPEG"


def test_the_same_pages_as_caption_pairs(tmp_path):
    archive(tmp_path)
    tree = {
        "source": {"type": "warc", "path": str(tmp_path / "*.warc.gz"), "yields": "alt_pairs"},
        "steps": [{"text_length": {"min_words": 2}}, {"resize": {"mode": "no"}}],
        "shards": {"layout": "captions"},
    }
    path = tmp_path / "pairs.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    made = run(path, tmp_path / "out", local=True, workers=1)
    samples = list(webdataset.WebDataset(str(next((tmp_path / "out").glob("*.tar"))), shardshuffle=False))
    assert made["kept"] == 10
    assert sorted(sample["txt"].decode() for sample in samples) == [f"The flood {number}" for number in (0, *range(9))]
    assert all(json.loads(sample["json"])["url"].endswith(".jpg") for sample in samples)


def test_clip_score_scores_images_with_their_best_text_and_drops_only_images(tmp_path):
    archive(tmp_path)
    clip = {"model": f"local-dir:{HERE / 'clip'}", "precision": "fp32", "min_score": -1}
    steps = ["dedupe_page_url", {"resize": {"mode": "no"}}, {"clip_score": clip}, {"document_quality": {"max_special": 1}}]
    tree = {"source": {"type": "warc", "path": str(tmp_path / "*.warc.gz")}, "steps": steps, "shards": {"layout": "documents"}}
    path = tmp_path / "scored.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    first = run(path, tmp_path / "out", local=True, workers=1)
    scores = []
    for facts in facts_of(tmp_path / "out"):
        image_scores, which = facts["scores"]["clip_score"], facts["scores"]["clip_score.text"]
        assert [score is None for score in image_scores] == [image is None for image in facts["images"]]
        assert {text for text in which if text} <= {"alt", "caption", "before", "after"}
        scores += [(facts["key"], score) for score in image_scores if score is not None]
    values = sorted(score for _, score in scores)
    limit = values[len(values) // 2]
    made = run(path, tmp_path / "out", overrides={"clip_score.min_score": limit}, local=True, workers=1)
    left = {facts["key"]: [score for score in facts["scores"]["clip_score"] if score] for facts in facts_of(tmp_path / "out")}
    assert sorted(score for image_scores in left.values() for score in image_scores) == values[len(values) // 2 :]
    assert made["kept"] == len({key for key, score in scores if score >= limit}) < first["kept"]


def facts_of(out) -> list[dict]:
    tars = [str(tar) for tar in out.glob("*.tar")]
    return [json.loads(sample["json"]) for sample in webdataset.WebDataset(tars, shardshuffle=False)]
