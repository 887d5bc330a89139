"""Tars of documents in the forms of MINT-1T and NeMo Curator are read as rows."""

import io
import json

import pytest
from PIL import Image

from tests.images.pictures import photo, saved
from tests.loader.tars import write_tar
from tests.rows import document, table
from tests.sources.reading import read_all
from vlmdata.engine.output.pack import pack
from vlmdata.engine.output.sample import samples
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.sources.interleaved_tars import InterleavedTars

JPEG = saved(photo(64, 48), "JPEG")


def sample(key: str, texts: list, images: list, **others) -> tuple[str, bytes]:
    return f"{key}.json", json.dumps({"texts": texts, "images": images, **others}).encode()


def frames(*colours: str) -> bytes:
    out = io.BytesIO()
    first, *rest = (Image.new("RGB", (50, 40), colour) for colour in colours)
    first.save(out, "TIFF", save_all=True, append_images=rest)
    return out.getvalue()


def test_members_are_found_by_either_name_and_keep_their_position(tmp_path):
    path = write_tar(
        tmp_path / "x.tar",
        [
            sample("a%2Fb", [None, "one\n\ntwo", None], ["0.jpg", None, "a%2Fb.2.jpg"], url="http://e.org/", lang="en"),
            ("a%2Fb.0.jpg", JPEG),
            ("a%2Fb.2.jpg", JPEG),
        ],
    )
    (row,) = read_all(InterleavedTars(path=str(path))).to_pylist()
    images = [image for image in row["images"] if image]
    assert [image is not None for image in row["images"]] == [True, False, False, True]
    assert [text["text"] for text in row["texts"] if text] == ["one", "two"]
    assert all((i["blob"], i["size"], i["width"], i["data"]) == (str(path), len(JPEG), 64, None) for i in images)
    whole = (tmp_path / "x.tar").read_bytes()
    assert [whole[i["offset"] : i["offset"] + i["size"]] for i in images] == [JPEG, JPEG]
    assert row["url"] == "http://e.org/" and json.loads(row["extra"]) == {"lang": "en", "source_key": "a%2Fb"}


@pytest.mark.parametrize("named", [["0.jpg", "1.jpg"], ["0.0.jpg", "0.1.jpg"], ["folder/0.0.jpg", "1.JPG"]])
def test_an_image_may_have_the_name_of_its_sample(tmp_path, named):
    path = write_tar(tmp_path / "x.tar", [sample("0", [None, None], named), ("0.0.jpg", JPEG), ("0.1.jpg", JPEG[:-1])])
    (row,) = read_all(InterleavedTars(path=str(path))).to_pylist()
    assert [image["size"] for image in row["images"]] == [len(JPEG), len(JPEG) - 1]


def test_the_frames_of_a_tiff_become_the_images_in_order(tmp_path):
    path = write_tar(
        tmp_path / "x.tar",
        [
            sample("pdf", ["t", None, None, None], [None, "page_1_image_0", "page_1_image_1", "page_2_image_0"]),
            ("pdf.tiff", frames("red", "blue")),
        ],
    )
    (row,) = read_all(InterleavedTars(path=str(path))).to_pylist()
    images = [image for image in row["images"] if image]
    found = [Image.open(io.BytesIO(i["data"])).getpixel((5, 5)) if i["data"] else i["reason"] for i in images]
    assert found == [(255, 0, 0), (0, 0, 255), "no_image"] and row["drop"] is None


def test_the_frames_of_a_tiff_are_limited_by_their_total_cost_in_the_row(tmp_path):
    pages = [Image.new("1", (4000, 4000))] * 8
    tiff = saved(pages[0], "tiff", save_all=True, append_images=pages[1:], compression="group4")
    path = write_tar(tmp_path / "x.tar", [sample("k", [None] * 8, [f"x{n}" for n in range(8)]), ("k.tiff", tiff)])
    (row,) = read_all(InterleavedTars(path=str(path))).to_pylist()
    assert len(tiff) < 10_000 and row["reason"] is None
    assert [image["reason"] for image in row["images"]] == [None] * 5 + ["too_costly"] * 3


def test_addresses_are_read_and_unreadable_members_have_a_reason(tmp_path):
    path = write_tar(
        tmp_path / "x.tar",
        [
            sample("url", ["t", None], [None, "https://e.org/a.jpg"]),
            ("bad.json", b"{"),
            ("list.json", b"[]"),
            sample("lost", ["t", None], [None, "1.jpg"]),
            sample("none", [], []),
        ],
    )
    rows = read_all(InterleavedTars(path=str(path))).to_pylist()
    assert [row["reason"] for row in rows] == [None, "bad_record", "bad_record", "no_image", "empty_document"]
    assert rows[0]["images"][1]["url"] == "https://e.org/a.jpg"


def test_the_reader_of_nemo_curator_reads_our_tars(tmp_path):
    """With 139 real documents, nemo_curator 1.4.0 also returned 294 of 294 images."""
    reader = pytest.importorskip(
        "nemo_curator.stages.interleaved.io.readers.webdataset", reason="nemo_curator is not installed"
    )
    from nemo_curator.tasks import FileGroupTask

    image = {"format": "jpeg", "width": 8, "height": 8, "blob": "work/data/b", "size": 9}
    rows = table([document("one", {**image, "offset": 0}, "two", {**image, "offset": 9})])
    store = LocalStore(tmp_path)
    with store.new_file("work/data/b") as file:
        file.write(b"picture 1picture 2")
    made = pack(store, 0, list(samples(rows, "documents", 0, 1)))
    stage = reader.InterleavedWebdatasetReaderStage(images_field="files", materialize_on_read=True)
    read = stage.process(FileGroupTask(dataset_name="ours", data=[str(tmp_path / made["tar"])])).data.to_pylist()
    assert [(row["modality"], row["text_content"] or row["binary_content"]) for row in read if row["position"] >= 0] == [
        ("text", "one"),
        ("image", b"picture 1"),
        ("text", "two"),
        ("image", b"picture 2"),
    ]
