"""`vlmdata check` names the file, the column and the fix for each mistake in a source, and `run` stops with the same lines."""

import gzip
import io
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.preflight.checking import check, lines_of_run
from vlmdata.cli import main

ADDRESSES = [f"https://e.example/{number}.jpg" for number in range(5)]


def parquet(**columns: list) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns or {"url": ADDRESSES, "caption": ["a cat"] * 5}), sink)
    return sink.getvalue()


def captions(values: list) -> bytes:
    return parquet(url=ADDRESSES, caption=values)


HTML = b"<!DOCTYPE html><html><body>404</body></html>"
LINES = "\n".join(json.dumps({"url": url, "caption": "a"}, indent=1) for url in ADDRESSES).encode()
FILES = [  # name, content, exit code, words
    ("a.parquet", HTML, 2, "a.parquet is HTML or XML, not parquet"),
    ("a.parquet", gzip.compress(b"url,caption\nhttps://a.org/,a"), 2, "begins with b'url,caption\\n', not parquet"),
    ("a.parquet", parquet()[:-20], 2, "a.parquet is cut off, because its end is missing"),
    ("a.parquet", parquet()[:300], 2, "a.parquet is cut off, because its end is missing"),
    ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", 2, "a pointer of Git LFS, not the file itself"),
    ("a.parquet", b"", 0, "a.parquet is empty, so it gives no rows"),
    ("a.csv", HTML, 2, "a.csv is HTML or XML, not csv"),
    ("a.csv", parquet(), 2, "a.csv is parquet, not csv"),
    ("a.csv", b"PK\x03\x04" + bytes(100), 2, "a.csv is a zip archive, not csv"),
    ("a.csv", b"url,caption\n", 0, "there is no row in"),
    ("a.csv", b"link,caption\nhttps://a.org/,a\n", 2, "there is no column 'url'"),
    ("a.csv", b"URL,caption\nhttps://a.org/,a\n", 2, "Did you mean 'URL'?"),
    ("a.csv", bytes(range(128, 256)) * 9 + b"\n1,2\n", 2, "the header is not in utf-8"),
    ("a.jsonl", LINES, 2, "the first line is not a whole JSON value"),
    ("a.jsonl", b"[[[\n{{\n", 2, "No record could be read as an object"),
    ("a.json", HTML, 2, "a.json is HTML or XML, not json"),
    ("a.txt", HTML, 2, "a.txt is HTML or XML, not txt"),
    ("a.txt", b"\xff\xfe\x80\x81\n" * 3, 2, "dropped as bad_encoding, such as a.txt, line 1"),
    ("a.txt", b"cat.jpg\ndog.jpg\n", 2, "none is an http(s) address; the first is 'cat.jpg'"),
    ("a.txt", b"s3://bucket/cat.jpg\n", 2, "none is an http(s) address"),
    ("a.txt", b"https://me:" + b"5ecret" * 50 + b"@a.example/b.jpg\n", 2, "the first is 'https://REDACTED@a.example/b.jpg'"),
    ("a.txt", b"http://10.1.2.3/a.jpg\nhttp://localhost:8000/b.jpg\n", 2, 'download.allowed_hosts=["10.1.2.3"]'),
    ("a.txt", b"http://[::1]:8000/a.jpg\n", 2, 'download.allowed_hosts=["[::1]:8000"]'),
    ("a.txt", b"http://10.1.2.3/a.jpg\nhttp://e.example/b.jpg\n", 0, ""),
    (
        "a.parquet",
        parquet(url=[1, 2], caption=["a", "b"]),
        2,
        "a.parquet: the column 'url' cannot be read: the values are int64, not text",
    ),
    (
        "a.parquet",
        parquet(url=[["x"]], caption=["a"]),
        2,
        "a.parquet: the column 'url' cannot be read: the values are list<element: string>, not text",
    ),
    (
        "a.parquet",
        captions([{"en": "x"}] * 5),
        2,
        "a.parquet: the column 'caption' cannot be read: the values are struct<en: string>, not text",
    ),
    ("a.parquet", captions([b"\xff\x80"] * 5), 2, "dropped as bad_encoding, such as a.parquet, row 1"),
    ("a.parquet", captions([["a", "b"]] * 5), 0, ""),
    ("a.parquet", parquet(url=pa.array([None] * 3, pa.string()), caption=["a"] * 3), 2, "dropped as no_address"),
]


@pytest.mark.parametrize(("name", "content", "status", "words"), FILES, ids=range(len(FILES)))
def test_a_list_that_is_not_what_it_says_is_named(tmp_path, capsys, name, content, status, words):
    (tmp_path / name).write_bytes(content)
    assert check(tmp_path, {"type": "url_list", "path": name}) == status
    written = capsys.readouterr().err
    assert words in written and written.count("\n") <= 2 and "Traceback" not in written


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("absent.parquet", "there is no such file or folder. Did you mean 'present.parquet'?"),
        ("no*.parquet", "no*.parquet matches no file"),
        ("folder.parquet", "the folder holds no file that ends in .parquet, .csv"),
        ("", "path must name at least one file"),
    ],
)
def test_a_path_without_a_file_is_named(tmp_path, capsys, path, words):
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "present.parquet").write_bytes(parquet())
    assert check(tmp_path, {"type": "url_list", "path": path}) == 2
    assert words in capsys.readouterr().err


TALK = [{"from": "human", "value": "<image>a"}, {"from": "gpt", "value": "b"}]
NAMING = {  # the source, its list, and the parameter of the images' folder
    "llava_json": ([{"image": "lost.png", "conversations": TALK}], "images"),
    "messages": ([{"image": "lost.png", "conversations": TALK}], "folder"),
    "coco": ({"images": [{"id": 1, "file_name": "lost.png"}], "annotations": [{"image_id": 1, "caption": "a"}]}, "images"),
    "mmc4": ({"text_list": ["a"], "image_info": [{"image_name": "lost.png", "matched_text_index": 0}]}, "images"),
}


def test_an_empty_picture_gives_a_dropped_row(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos" / name).write_bytes(b"")
    assert check(tmp_path, {"type": "files", "path": "photos/a.jpg"}, ["resize"]) == 0
    assert "a.jpg is empty, so it gives only a dropped row" in capsys.readouterr().err
    assert check(tmp_path, {"type": "files", "path": "photos"}, ["resize"]) == 0
    assert "a.jpg and 1 more are empty, so each gives only a dropped row" in capsys.readouterr().err


@pytest.mark.parametrize("kind", NAMING)
def test_a_wrong_folder_of_images_is_named_with_its_setting(tmp_path, capsys, kind):
    content, parameter = NAMING[kind]
    name = "a.jsonl" if kind == "mmc4" else "a.json"
    (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "b.png").write_bytes(b"")
    source = {"type": kind, "path": name}
    steps = {"steps": ["resize"], "shards": {"layout": "documents"}}
    (tmp_path / "r.yaml").write_text(json.dumps({"source": {**source, parameter: "others"}, **steps}))
    assert main(["check", "r.yaml"]) == 2
    written = capsys.readouterr().err
    assert "the row names the image 'lost.png'" in written
    assert f"looked for in others. Set source.{parameter} to their folder" in written
    assert main(["check", "r.yaml", "--set", f"source.{parameter}=gone"]) == 2
    assert f"gone: there is no such file or folder. Set source.{parameter}" in capsys.readouterr().err


def test_missing_images_of_a_table_name_the_folder(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "list.csv").write_text("file_name,caption\nlost.png,a\n")
    assert check(tmp_path, {"type": "files", "path": "photos", "table": "list.csv"}, ["resize"]) == 2
    assert f"looked for in {tmp_path / 'photos'}, the list's folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "status", "words"), [(HTML + b" " * 999, 2, "is HTML or XML, not a tar"), (b"", 0, "is empty")]
)
def test_a_tar_that_is_no_tar_is_named(tmp_path, capsys, content, status, words):
    (tmp_path / "a.tar").write_bytes(content)
    assert check(tmp_path, {"type": "webdataset", "path": "a.tar"}, ["resize"]) == status
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("of", "words"),
    [
        (
            "score",
            "none of the first 5 rows has a number in 'score', such as row 1, which has 'high'",
        ),
        ("scor", "no row has it. Did you mean 'score'?"),
    ],
)
def test_a_score_that_is_no_number_is_named(tmp_path, capsys, of, words):
    (tmp_path / "a.parquet").write_bytes(parquet(url=ADDRESSES, caption=["a"] * 5, score=["high"] * 5))
    steps = [{"source_score": {"of": of, "min_value": 0.3}}, {"download": {"contact": "a@b.org"}}]
    assert check(tmp_path, {"type": "url_list", "path": "a.parquet"}, steps) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"contact": "a@b.org", "blocked_domains": ["e.example"]}, 2, "because `download` blocks them"),
        ({"contact": "a@b.org", "block_files": ["absent.txt"]}, 2, "absent.txt"),
        ({"contact": ""}, 0, "download.contact is empty"),
        ({"contact": "  "}, 0, "download.contact is empty"),
        ({"contact": "me"}, 0, "by which nobody can be reached"),
        ({"contact": "\n"}, 2, "contact must be printable ASCII"),
        ({"contact": "https://a.org/"}, 0, ""),
    ],
)
def test_what_download_cannot_do_is_named(tmp_path, capsys, options, status, words):
    (tmp_path / "a.parquet").write_bytes(parquet())
    assert check(tmp_path, {"type": "url_list", "path": "a.parquet"}, [{"download": options}]) == status
    written = capsys.readouterr().err
    assert words in written and bool(written) == bool(words)


def test_check_and_run_report_all_mistakes_with_the_same_lines(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(
        "source: {type: url_list, path: absent.parquet}\n"
        "steps: [dwnload, {image_size: {min_sid: 3, max_sid: 4}}, {source_score: {of: a, min_value: 2, max_value: 1}}]\n"
        "shard: 3\n"
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "holiday.jpg").touch()
    os.chdir(tmp_path)
    assert main(["check", "r.yaml", "--out", "out"]) == 2
    lines = capsys.readouterr().err.splitlines()
    words = ["'shard'", "'dwnload'", "'min_sid'", "'max_sid'", "min_value = 2", "absent.parquet", "holiday.jpg"]
    assert len(lines) == len(words)
    assert all(word in line and line.startswith("vlmdata: ") for word, line in zip(words, lines, strict=True))
    assert lines_of_run("r.yaml", "out", capsys) == lines
    assert os.listdir("out") == ["holiday.jpg"]
