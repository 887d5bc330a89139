"""A whole run on local workers gives every row one outcome, and the kept images equal those on the server."""

import io
import tarfile
from collections import Counter

import datasets
import numpy as np
import pytest
import simplejpeg
import webdataset
from PIL import Image

from tests.engine.site import download, hashes, ledger, manifest, site
from vlmdata import run
from vlmdata.step import RecipeError

pytestmark = pytest.mark.whole


def names(tar: str) -> list[str]:
    with tarfile.open(tar) as members:
        return members.getnames()


def test_every_row_has_one_outcome_and_the_sums_agree(tmp_path):
    with site(tmp_path, 160) as web:
        made = run(web.recipe, tmp_path / "out", local=True, workers=2)
    lines = ledger(tmp_path / "out")
    assert Counter((line["outcome"], line["step"], line["reason"]) for line in lines) == {
        ("kept", None, None): 120,
        ("dropped", "image_size", "min_side"): 10,
        ("dropped", "download", "http_404"): 10,
        ("dropped", "resize", "truncated"): 10,
        ("dropped", "resize", "not_an_image"): 10,
    }
    assert (made["rows"], made["kept"], sum(line["rows"] for line in made["dropped"])) == (160, 120, 40)
    assert len({line["key"] for line in lines}) == 160
    assert {line["value"] for line in lines if line["step"] == "image_size"} == {16.0}


def test_webdataset_and_datasets_read_the_tars_and_find_the_served_images(tmp_path):
    steps = [download(), {"resize": {"mode": "no", "skip_reencode": True}}]
    with site(tmp_path, 48, steps=steps, samples=10) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=1)
    tars = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    served = {path.split("/")[-1]: body for path, body in web.bodies.items()}
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    assert [len(names(tar)) for tar in tars] == [30, 30, 30, 27]
    assert len(samples) == len(served) == 39
    for sample in samples:
        assert sample["txt"] == sample["json"]["caption"]
    raw = list(webdataset.WebDataset(tars, shardshuffle=False))
    by_key = {sample["__key__"]: sample["json"] for sample in samples}
    for sample in raw:
        url = by_key[sample["__key__"]]["url"]
        assert sample["jpg"] == served[url.split("/")[-1]]
    loaded = datasets.load_dataset("webdataset", data_files=tars, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["__key__"] == [sample["__key__"] for sample in raw]
    pixels = simplejpeg.decode_jpeg(raw[0]["jpg"])
    assert np.array_equal(np.asarray(loaded[0]["jpg"]), np.asarray(Image.open(io.BytesIO(raw[0]["jpg"]))))
    assert pixels.shape == np.asarray(loaded[0]["jpg"]).shape


def test_the_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    with site(tmp_path, 200) as web:
        run(web.recipe, tmp_path / "one", local=True, workers=1)
        run(web.recipe, tmp_path / "three", local=True, workers=3)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "three")


def test_a_second_run_of_a_finished_dataset_does_nothing(tmp_path):
    with site(tmp_path, 40) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=1)
        asked, before = len(web.requests()), {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
        run(web.recipe, tmp_path / "out", local=True, workers=1)
        assert len(web.requests()) == asked
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before


def test_a_changed_threshold_fetches_nothing_and_equals_a_fresh_run(tmp_path):
    with site(tmp_path, 160) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=2)
        asked = len(web.requests())
        run(web.recipe, tmp_path / "out", overrides={"image_size.min_side": 10}, local=True, workers=2)
        assert len(web.requests()) == asked
        assert manifest(tmp_path / "out")["kept"] == 130
        run(web.recipe, tmp_path / "fresh", overrides={"image_size.min_side": 10}, local=True, workers=1)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")


def test_a_looser_filter_fetches_only_the_rows_that_it_used_to_drop(tmp_path):
    with site(tmp_path, 64) as web:
        run(web.recipe, tmp_path / "out", overrides={"text_length.min_chars": 26}, local=True, workers=1)
        first = set(web.requests())
        run(web.recipe, tmp_path / "out", overrides={"text_length.min_chars": 1}, local=True, workers=1)
        second = web.requests()[len(first) :]
        assert len(first) == 54 and len(second) == 10 and not first & set(second)
        run(web.recipe, tmp_path / "fresh", overrides={"text_length.min_chars": 1}, local=True, workers=1)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")


def test_a_stricter_filter_leaves_no_shard_of_the_larger_dataset_behind(tmp_path):
    with site(tmp_path, 64) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=1)
        run(web.recipe, tmp_path / "out", overrides={"text_length.min_chars": 26}, local=True, workers=1)
        run(web.recipe, tmp_path / "fresh", overrides={"text_length.min_chars": 26}, local=True, workers=1)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")


def test_a_limit_takes_the_first_rows_and_a_run_without_it_resumes(tmp_path):
    with site(tmp_path, 64) as web:
        assert run(web.recipe, tmp_path / "out", limit=20, local=True, workers=1)["rows"] == 20
        assert len(web.requests()) == 20
        run(web.recipe, tmp_path / "out", local=True, workers=1)
        assert len(web.requests()) == 64
        run(web.recipe, tmp_path / "fresh", local=True, workers=1)
    assert hashes(tmp_path / "out") == hashes(tmp_path / "fresh")


def test_retry_fetches_only_rows_that_failed_for_the_named_reasons(tmp_path):
    with site(tmp_path, 64) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=1)
        asked = len(web.requests())
        run(web.recipe, tmp_path / "out", retry=("http_404",), local=True, workers=1)
        again = web.requests()[asked:]
        assert len(again) == 4 and all("/missing/" in path for path in again)


def test_another_source_is_refused_before_any_work(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with site(tmp_path / "a", 16) as web:
        run(web.recipe, tmp_path / "out", local=True, workers=1)
    before = hashes(tmp_path / "out")
    with site(tmp_path / "b", 17) as web, pytest.raises(RecipeError, match="built from another source"):
        run(web.recipe, tmp_path / "out", local=True, workers=1)
    assert hashes(tmp_path / "out") == before and not web.requests()
