"""Lines of Multimodal C4 are read as rows."""

import gzip
import json
import zipfile

import pytest

from tests.sources.reading import read_all
from vlmdata.sources.mmc4 import Mmc4
from vlmdata.step import RecipeError

RECORD = {
    "url": "http://e.org/page",
    "text_list": ["First sentence.", "Second sentence.", "Third."],
    "image_info": [
        {"image_name": "b.jpg", "raw_url": "http://e.org/b.jpg", "matched_text_index": 2, "matched_sim": 0.3},
        {"image_name": "a.jpg", "raw_url": "http://e.org/a.jpg", "matched_text_index": 0, "matched_sim": 0.1},
        {"image_name": "c.jpg", "raw_url": "http://e.org/c.jpg", "matched_text_index": 99, "matched_sim": 0.2},
    ],
    "similarity_matrix": [[0.1, 0.1, 0.3]] * 3,
}
LINES = json.dumps(RECORD) + "\n\n{broken\n" + json.dumps({"text_list": [], "image_info": []}) + "\n[1]\n"


@pytest.mark.parametrize("packing", ["plain", "gzip", "zip"])
def test_images_are_placed_before_the_sentence_matched_to_them(tmp_path, packing):
    path = tmp_path / {"plain": "x.jsonl", "gzip": "x.jsonl.gz", "zip": "x.jsonl.zip"}[packing]
    if packing == "zip":
        with zipfile.ZipFile(path, "w") as out:
            out.writestr("docs_shard_0.jsonl", LINES)
    else:
        path.write_bytes(gzip.compress(LINES.encode()) if packing == "gzip" else LINES.encode())
    rows = read_all(Mmc4(path=str(tmp_path))).to_pylist()
    assert [row["reason"] for row in rows] == [None, "bad_record", "empty_document", "bad_record"]
    pairs = zip(rows[0]["texts"], rows[0]["images"], strict=True)
    assert [text["text"] if text else image["url"][-5:] for text, image in pairs] == [
        "a.jpg",
        "First sentence.",
        "Second sentence.",
        "b.jpg",
        "Third.",
        "c.jpg",
    ]
    assert rows[0]["url"] == "http://e.org/page" and json.loads(rows[0]["extra"]) == {"matched_sim": [0.1, 0.3, 0.2]}


def test_other_fields_of_a_record_go_into_the_sample(tmp_path):
    own = {"licence": "CC BY", "could_have_url_duplicate": 0, "half": "\ud800"}
    (tmp_path / "x.jsonl").write_text(json.dumps({**RECORD, **own}))
    (row,) = read_all(Mmc4(path=str(tmp_path))).to_pylist()
    assert json.loads(row["extra"]) == {**own, "half": "?", "matched_sim": [0.1, 0.3, 0.2]}


def test_images_of_low_similarity_are_left_out(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps(RECORD))
    (row,) = read_all(Mmc4(path=str(tmp_path), min_similarity=0.2)).to_pylist()
    assert [image["url"][-5:] for image in row["images"] if image] == ["b.jpg", "c.jpg"]


def test_without_a_limit_images_of_negative_similarity_are_kept(tmp_path):
    info = [{"raw_url": "http://e.org/a.jpg", "matched_text_index": 0, "matched_sim": -0.1}]
    (tmp_path / "x.jsonl").write_text(json.dumps({"text_list": ["a"], "image_info": info}))
    (row,) = read_all(Mmc4(path=str(tmp_path))).to_pylist()
    assert [image and image["url"] for image in row["images"]] == ["http://e.org/a.jpg", None]


@pytest.mark.parametrize("image", [{"matched_sim": "high"}, {"matched_sim": [1]}, {"matched_text_index": float("inf")}, 5])
def test_a_line_of_other_values_loses_only_one_row(tmp_path, image):
    good = {"text_list": ["a"], "image_info": []}
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(one) for one in ({**good, "image_info": [image]}, good)))
    assert read_all(Mmc4(path=str(tmp_path)))["reason"].to_pylist() == ["bad_record", None]


def test_a_damaged_zip_is_reported_by_name(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(RecipeError, match=r"a\.zip cannot be read: File is not a zip file"):
        read_all(Mmc4(path=str(tmp_path)))
