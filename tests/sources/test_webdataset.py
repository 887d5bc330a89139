import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.real_data import real_data
from tests.sources.pictures import picture
from tests.sources.reading import pairs_of, read_all
from vlmdata.engine.store import read_blob
from vlmdata.sources.webdataset import Webdataset


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def only_image(row: dict) -> dict:
    return next(image for image in row["images"] if image)


def test_bytes_stay_in_the_tar_and_facts_come_from_them(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        {"one.png": picture(), "one.txt": "a caption ü".encode(), "one.json": b'{"url": "http://a.org/", "n": 1}'},
    )
    (row,) = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    image = only_image(row)
    assert read_blob(None, image["blob"], image["offset"], image["size"]) == picture()
    assert (image["format"], image["width"], image["original_height"], image["url"]) == ("png", 8, 6, "http://a.org/")
    assert (row["texts"][1]["text"], json.loads(row["extra"])) == ("a caption ü", {"n": 1, "source_key": "one"})


def test_a_compressed_tar_gives_its_bytes_along(tmp_path):
    write_tar(tmp_path / "a.tar", {"one.png": picture(), "one.txt": b"x"})
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    plain, packed = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    assert only_image(packed)["data"] == picture() and only_image(packed)["blob"] is None
    assert only_image(packed)["sha256"] == only_image(plain)["sha256"]


def test_every_sample_of_a_bad_tar_is_accounted_for(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        {
            "1.png": picture(),
            "2.txt": b"no image",
            "3.jpg": b"<html>",
            "3.txt": b"x",
            "4.png": picture(),
            "4.json": b"{",
            "5.png": picture(),
        },
    )
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: whole.index(b"5.png") + 520])
    assert read_all(Webdataset(path=str(tmp_path)))["reason"].to_pylist() == [
        None,
        "no_image",
        "not_an_image",
        "bad_record",
        "bad_record",
    ]


def test_tars_of_one_name_in_two_folders_have_rows_of_their_own(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_tar(tmp_path / folder / "0.tar", {"1.png": picture()})
    source = Webdataset(path=str(tmp_path))
    ids = [i for piece in source.pieces() for table in source.read(piece) for i in table["id"].to_pylist()]
    assert ids == ["a/0.tar/1", "b/0.tar/1"]


def test_of_a_dataset_of_ours_the_tars_at_its_top_count(tmp_path):
    (tmp_path / "work").mkdir()
    for name in ("00000.tar", "work/00000.abc.tar"):
        write_tar(tmp_path / name, {"1.png": picture()})
    assert len(read_all(Webdataset(path=str(tmp_path)))) == 2
    (tmp_path / "manifest.json").write_text("{}")
    assert len(read_all(Webdataset(path=str(tmp_path)))) == 1


def test_captions_in_the_json_and_several_images(tmp_path):
    write_tar(
        tmp_path / "a.tar",
        {
            "1.png": picture(),
            "1.json": b'{"caption": ["one", "two"]}',
            "2.0.png": picture(),
            "2.1.png": picture(9),
            "2.txt": b"both",
        },
    )
    one, two = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    assert (one["texts"][1]["text"], one["texts"][1]["alternatives"]) == ("one", ["two"])
    assert [image and image["width"] for image in two["images"]] == [8, 9, None]
    assert two["texts"][2]["text"] == "both"


def test_a_document_of_ours_comes_back_whole(tmp_path):
    facts = {
        "texts": [None, "question", None, "answer"],
        "images": ["http://a.org/1", None, None, None],
        "metadata": [
            {"file": "0.png", "alt": "x", "phash": "00000000000000ff", "boxes": [[0, 0, 1, 1]]},
            None,
            {"file": "1.png"},
            None,
        ],
        "roles": ["user", "user", "user", "assistant"],
        "alternatives": [None, None, None, ["other"]],
        "url": "http://a.org/page",
        "scores": {"clip_score": 0.25},
        "topic": "kept",
    }
    write_tar(tmp_path / "a.tar", {"k.0.png": picture(), "k.1.png": picture(9), "k.json": json.dumps(facts).encode()})
    (row,) = read_all(Webdataset(path=str(tmp_path))).to_pylist()
    assert [text and text["text"] for text in row["texts"]] == facts["texts"]
    assert (row["roles"], row["url"], row["texts"][3]["alternatives"]) == (facts["roles"], facts["url"], ["other"])
    first, second = row["images"][0], row["images"][2]
    assert (first["url"], first["alt"], first["phash"], first["boxes"], second["width"]) == (
        "http://a.org/1",
        "x",
        255,
        [[0, 0, 1, 1]],
        9,
    )
    assert json.loads(row["extra"]) == {"topic": "kept", "source_key": "k", "earlier_scores": {"clip_score": 0.25}}


@pytest.mark.parametrize(
    ("folder", "count"), [("torchtitan_cc12m/cc12m_test", 32), ("clip-retrieval/test_clip_inference/test_tars", 11)]
)
def test_tars_of_others(folder, count):
    rows = read_all(Webdataset(path=str(real_data(f"F_vlm_repo_testdata/{folder}"))))
    assert (len(rows), rows["drop"].null_count) == (count, count)
    assert all(text for _, text, _ in pairs_of(rows)) == (count == 32)  # those of clip-retrieval have none
