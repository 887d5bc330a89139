"""`why` finds the outcome of a row by each word that identifies it, and by no other word."""

import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.engine.site import ledger, site
from vlmdata import run
from vlmdata.cli import main
from vlmdata.drop_reasons import dropped_for
from vlmdata.engine.output import lookup
from vlmdata.engine.output.ledger import ledger_rows
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.explain import find, tell, why
from vlmdata.readers.plain_rows import bad_record
from vlmdata.row import conform

pytestmark = pytest.mark.whole


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("why")
    with site(folder, 64) as web:
        run(web.recipe, folder / "out", local=True, workers=1)
    return folder / "out"


def test_every_row_is_found_by_its_key_its_address_and_its_hash(out):
    for line in ledger(out):
        words = [line["key"], line["url"], line["images"][0]["sha256"]]
        assert all(why(out, word) == [line] for word in words if word is not None)


def test_an_unknown_word_finds_no_row_even_if_hashes_collide(out, monkeypatch):
    line = ledger(out)[0]
    monkeypatch.setattr("vlmdata.explain.candidates", lambda store, name, words: np.arange(64, dtype=np.int32))
    assert why(out, line["key"]) == [line]
    assert why(out, "https://nowhere.example/x.jpg") == []


def test_the_command_prints_the_step_and_the_measured_value(out, capsys):
    small = next(line for line in ledger(out) if line["step"] == "image_size")
    assert main(["why", str(out), small["url"]]) == 0
    printed = capsys.readouterr().out
    assert "dropped by image_size: min_side, 16 against 32" in printed and small["key"] in printed
    assert main(["why", str(out), "https://nowhere.example/x.jpg"]) == 1


def test_a_reason_finds_the_rows_that_were_dropped_for_it(out, capsys):
    small = [line for line in ledger(out) if line["reason"] == "min_side"]
    assert dropped_for(out, "min_side", 1000) == (small, len(small))
    assert dropped_for(out, "min_side", 2) == (small[:2], len(small))
    assert dropped_for(out, "no_reason_of_ours", 2) == ([], 0)
    assert main(["why", str(out), "min_side", "--limit", "1", "--json"]) == 0
    assert [line["key"] for line in json.loads(capsys.readouterr().out)["rows"]] == [small[0]["key"]]


@pytest.mark.parametrize("word", ["image_size", "image_size: min_side", "image_size:min_side", "image_size : min_side"])
def test_a_step_is_found_as_show_prints_it_with_the_number_of_rows(out, capsys, word):
    small = [line for line in ledger(out) if line["step"] == "image_size"]
    assert find(out, word, limit=2) == (small[:2], len(small))
    assert main(["why", str(out), word, "--limit", "2"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"2 of {len(small)} rows; --limit {len(small)} shows all"
    assert sum("image_size: min_side, 16 against 32" in line for line in printed) == 4  # each row and its image


def test_a_word_that_is_not_found_is_answered_with_the_reasons_that_exist(out, capsys):
    def said(word):
        assert main(["why", str(out), word]) == 1
        return capsys.readouterr().err

    assert said("zzz").startswith(f"{out}: no row found for zzz. Rows were dropped by ")
    assert "image_size: min_side" in said("zzz")
    assert "no row found for min_sid. Did you mean 'min_side'? Rows were dropped by" in said("min_sid")
    assert said("a\nb\x1b[31m\u202e").startswith(f"{out}: no row found for a b [31m. Rows") and said("a\nb").count("\n") == 1
    assert "no row found for text_length. The step text_length dropped no row. Rows were dropped by" in said("text_length")


def test_a_rejected_image_of_a_kept_document_is_found_by_its_reason(tmp_path):
    listing = tmp_path / "chats.jsonl"
    images = []
    for name, side in (("big.png", 40), ("small.png", 8)):
        Image.new("RGB", (side, side), "red").save(tmp_path / name)
        images.append(name)
    turns = [{"role": "user", "content": "<image> <image> what?"}, {"role": "assistant", "content": "two squares"}]
    listing.write_text(json.dumps({"messages": turns, "images": images}) + "\n")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"source: {{type: messages, path: {listing}}}\nsteps: [resize: {{size: 32}}, image_size: {{min_side: 16}}]\n"
        "shards: {layout: documents}\n"
    )
    made = run(recipe, tmp_path / "out", local=True, workers=1)
    line = ledger(tmp_path / "out")[0]
    assert made["kept"] + len(made["dropped"]) == 1
    assert find(tmp_path / "out", "image_size: min_side") == ([line], 1) == find(tmp_path / "out", "min_side")
    assert find(tmp_path / "out", "max_aspect") == ([], 0)


def test_a_record_that_could_not_be_read_is_shown_with_its_place():
    row = bad_record("a.tar", "a header whose sum is wrong", byte=1536)
    assert (row["drop"], row["reason"], row["place"]) == ("source", "bad_record", "a.tar, byte 1536")
    rows = conform(pa.table({"key": ["k"], **{name: [value] for name, value in row.items() if name != "id"}}))
    line = ledger_rows(rows, 0, 10).to_pylist()[0]
    assert tell(line, "k").splitlines()[1:] == ["  place        a.tar, byte 1536", "  problem      a header whose sum is wrong"]


def test_measurements_are_written_without_noise_nulls_and_long_lists():
    verdict = {"drop": "clip_score", "reason": "min_score", "value": 0.19699999690055847, "threshold": 0.3}
    rows = conform(pa.table({"key": ["k"], **{name: [value] for name, value in verdict.items()}}))
    line = ledger_rows(rows, 0, 10).to_pylist()[0]
    line |= {"clip_score": [None, 0.19699999690055847], "other": [None, None], "vector": [0.25] * 512}
    assert tell(line, "k").splitlines() == [
        "k  dropped by clip_score: min_score, 0.197 against 0.3",
        "  clip_score   0.197",
        "  vector       0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, … (512 values)",
    ]


def test_an_image_inside_a_document_is_found_by_its_address(tmp_path):
    image = {"url": "https://a.example/2.jpg", "sha256": "f" * 64}
    rows = pa.table(
        {"key": ["k0", "k1"], "url": ["https://a.example/", None], "images": [[{**image, "url": "x"}, None, image], []]}
    )
    store = LocalStore(tmp_path)
    store.put("lookup/00000.parquet", lookup.encode(rows))
    found = {
        word: lookup.candidates(store, "ledger/00000.parquet", [word]).tolist() for word in (image["url"], "f" * 64, "k1", "no")
    }
    assert found == {image["url"]: [0], "f" * 64: [0], "k1": [1], "no": []}
