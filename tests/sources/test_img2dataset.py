"""Folders written by img2dataset 1.47 are read. The slow tests run it again over the loopback address."""

import hashlib
import io
import json
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fixtures import fixture
from tests.loader.tars import sample_files, write_tar
from tests.servers import LoopbackServer, reply
from tests.sources.reading import pairs_of, read_all
from vlmdata.engine.store.blob_bytes import read_blob
from vlmdata.sources.img2dataset import Img2dataset
from vlmdata.step import RecipeError
from vlmdata.web.img2dataset_errors import reason_of

pytestmark = pytest.mark.whole


def jpeg(side: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (2 * side, side), (side, 90, 20)).save(out, "JPEG")
    return out.getvalue()


FORMATS = ("webdataset", "files", "parquet")
CODE = """
import json, sys
from img2dataset import download
for options in json.loads(sys.argv[1]):
    download(**options)
"""


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Return img2dataset's output of six rows in each format: four images, one missing, one that is not an image."""
    pytest.importorskip("img2dataset")
    folder = tmp_path_factory.mktemp("img2dataset")
    routes = {f"/{side}.jpg": reply(jpeg(side), headers={"Content-Type": "image/jpeg"}) for side in (32, 40, 48, 56)}
    routes["/page.jpg"] = reply(b"<html>", headers={"Content-Type": "text/html"})
    with LoopbackServer(routes) as server:
        urls = [server.url(path) for path in ("/32.jpg", "/40.jpg", "/48.jpg", "/56.jpg", "/page.jpg", "/lost.jpg")]
        table = pa.table({"url": urls, "caption": [url[-6:] for url in urls], "licence": ["cc"] * 6})
        pq.write_table(table, folder / "list.parquet")
        options = {"url_list": str(folder / "list.parquet"), "input_format": "parquet", "caption_col": "caption"}
        options |= {"image_size": 16, "processes_count": 1, "thread_count": 2, "number_sample_per_shard": 4}
        options |= {"save_additional_columns": ["licence"], "timeout": 100}
        calls = [{**options, "output_format": name, "output_folder": str(folder / name)} for name in FORMATS]
        subprocess.run([sys.executable, "-c", CODE, json.dumps(calls)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session", params=["kept", pytest.param("written now", marks=pytest.mark.slow)])
def outputs(request, tmp_path_factory):
    """Return a folder with the output of each format."""
    if request.param == "written now":
        # written only once, although this fixture runs again for each change of its parameter
        return request.getfixturevalue("written")
    folder = tmp_path_factory.mktemp("img2dataset")
    return shutil.copytree(fixture("F_vlm_repo_testdata/img2dataset_output"), folder, dirs_exist_ok=True)


@pytest.fixture(params=FORMATS)
def output(request, outputs):
    return outputs / request.param


def test_every_row_is_read_with_its_image_or_its_error(output):
    rows = read_all(Img2dataset(path=str(output)))
    found = sorted((url.rpartition("/")[2], text, reason) for url, text, reason in pairs_of(rows))
    assert found == [
        ("32.jpg", "32.jpg", None),
        ("40.jpg", "40.jpg", None),
        ("48.jpg", "48.jpg", None),
        ("56.jpg", "56.jpg", None),
        ("lost.jpg", "st.jpg", "http_404"),
        ("page.jpg", "ge.jpg", "image_decoding_error"),
    ]


def test_images_are_not_copied_and_have_the_facts_of_the_original(output):
    for row in read_all(Img2dataset(path=str(output))).to_pylist():
        image = row["images"][0]
        assert json.loads(row["extra"])["licence"] == "cc"
        if row["drop"] is None:
            side = int(image["url"][-6:-4])
            data = image["data"] or read_blob(None, image["blob"], image["offset"], image["size"])
            assert Image.open(io.BytesIO(data)).size == (16, 16) == (image["width"], image["height"])
            assert (image["original_width"], image["original_height"]) == (2 * side, side)
            assert len(image["sha256"]) == 64


def test_a_success_whose_image_is_lost_is_reported(outputs, tmp_path):
    shutil.copytree(outputs / "webdataset", tmp_path, dirs_exist_ok=True)
    whole = (tmp_path / "00000.tar").read_bytes()
    (tmp_path / "00000.tar").write_bytes(whole[:700])  # a killed run leaves this
    reasons = read_all(Img2dataset(path=str(tmp_path)))["reason"].to_pylist()
    assert reasons.count("missing_in_shard") == 4


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        ("failed_to_download", "HTTP Error 410: Gone", "http_410"),
        ("failed_to_download", "<urlopen error timed out>", "timeout"),
        ("failed_to_download", "<urlopen error [Errno -2] Name or service not known>", "no_such_host"),
        ("failed_to_resize", "image too small", "image_too_small"),
        ("failed_to_download", None, "failed_to_download"),
    ],
)
def test_errors_become_reasons(status, message, reason):
    assert reason_of(status, message) == reason


def test_another_folder_is_refused(tmp_path):
    pq.write_table(pa.table({"url": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match="is not from img2dataset"):
        Img2dataset(path=str(tmp_path)).check()


def row_of(key: str) -> dict:
    facts = {"url": f"http://a.org/{key}", "caption": f"words of {key}", "key": key, "status": "success", "error_message": ""}
    return {**facts, "width": 8, "height": 6, "original_width": 8, "original_height": 6, "exif": "{}", "sha256": ""}


def files_of(key: str) -> list[tuple[str, bytes]]:
    return sample_files(key, {"jpg": jpeg(8), "txt": f"words of {key}".encode(), "json": b"{}"})


def outcomes(folder) -> list[tuple]:
    rows = read_all(Img2dataset(path=str(folder))).to_pylist()
    return [(row["reason"], row["texts"] and row["texts"][1]["text"], row["drop"] and row["place"]) for row in rows]


def test_samples_missing_from_the_parquet_are_read_and_lost_ones_are_reported(tmp_path):
    write_tar(tmp_path / "00000.tar", [*files_of("000000000"), *files_of("000000001")])
    pq.write_table(pa.Table.from_pylist([row_of("000000000"), row_of("000000002")]), tmp_path / "00000.parquet")
    write_tar(tmp_path / "00001.tar", files_of("000010000"))
    write_tar(tmp_path / "00002.tar", files_of("000020000"))
    (tmp_path / "00002.parquet").write_bytes(b"")  # a killed run leaves this
    (tmp_path / "00003").mkdir()
    for name, data in files_of("000030000"):
        (tmp_path / "00003" / name).write_bytes(data)
    (tmp_path / "00004_stats.json").write_text("{}")
    Img2dataset(path=str(tmp_path)).check()
    assert outcomes(tmp_path) == [
        (None, "words of 000000000", None),
        ("missing_in_shard", "words of 000000002", None),
        (None, "words of 000000001", None),
        (None, "words of 000010000", None),
        (None, "words of 000020000", None),
        ("bad_record", None, "00002.parquet"),
        (None, "words of 000030000", None),
        ("bad_record", None, "00004_stats.json"),
    ]


def test_a_damaged_stretch_of_a_tar_is_reported_beside_the_lost_row(tmp_path):
    tar = write_tar(tmp_path / "00000.tar", [*files_of("000000000"), *files_of("000000001")])
    data = bytearray(tar.read_bytes())
    data[:100] = b"x" * 100  # the first header
    tar.write_bytes(data)
    pq.write_table(pa.Table.from_pylist([row_of("000000000"), row_of("000000001")]), tmp_path / "00000.parquet")
    assert outcomes(tmp_path) == [
        ("missing_in_shard", "words of 000000000", None),
        (None, "words of 000000001", None),
        ("bad_record", None, "00000.tar, byte 0"),
    ]


def test_files_missing_from_the_parquet_of_their_folder_are_read_too(tmp_path):
    (tmp_path / "00000").mkdir()
    for name, data in [*files_of("000000000"), *files_of("000000009")]:
        (tmp_path / "00000" / name).write_bytes(data)
    pq.write_table(pa.Table.from_pylist([row_of("000000000")]), tmp_path / "00000.parquet")
    rows = read_all(Img2dataset(path=str(tmp_path))).to_pylist()
    assert [(row["reason"], row["images"][0]["format"]) for row in rows] == [(None, "jpeg"), (None, "jpeg")]


@pytest.mark.parametrize(
    ("digest", "kept"),
    [("AB" * 32, "ab" * 32), (f"sha256:{'ab' * 32}", "ab" * 32), ("ab" * 31, None), ("x", None), (None, None)],
)
def test_an_invalid_hash_or_size_is_ignored(tmp_path, digest, kept):
    write_tar(tmp_path / "00000.tar", files_of("000000000"))
    row = {**row_of("000000000"), "sha256": digest, "original_width": "wide", "original_height": 9.0}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "00000.parquet")
    ((image, _),) = (one["images"] for one in read_all(Img2dataset(path=str(tmp_path))).to_pylist())
    assert image["sha256"] == (kept or hashlib.sha256(dict(files_of("000000000"))["000000000.jpg"]).hexdigest())
    assert (image["original_width"], image["original_height"]) == (image["width"], 9)
