"""Archives as streams of records, whole or broken."""

import gzip
import io
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from fastwarc.stream_io import Lz4Writer, ZstdWriter, zstd_train_dictionary_from_samples

from bench.inputs.archives import arc, framed, gz, http, warc
from tests.fixtures import fixture
from tests.html import odd_archives
from tests.real_data import real_data
from vlmdata.html.archive import Record, records, volumes
from vlmdata.html.digest import digest_fits

PAGES = [warc("response", f"http://ex.com/{i}", http(b"<p>%d " % i * 200)) for i in range(5)]
OTHERS = [warc("warcinfo", "", b"software: test\r\n"), warc("request", "http://ex.com/0", b"GET / HTTP/1.1\r\n\r\n")]
WHOLE = [*OTHERS, *PAGES]


def read(path, **options) -> list[Record]:
    return [record for volume in volumes(path) for record in records(volume, **options)]


def summary(found: list[Record]) -> Counter:
    return Counter(record.kind + (f":{record.problem}" if record.problem else "") for record in found)


def zstd_with_dictionary() -> bytes:
    dictionary = zstd_train_dictionary_from_samples([record[i:] for record in PAGES * 40 for i in (0, 50)], 4096)
    return framed(ZstdWriter, WHOLE, dictionary=dictionary, compress_dictionary_frame=True)


def wacz(compression: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        file.writestr("archive/b.warc.gz", gz(*PAGES))
        file.writestr("archive/a.warc", b"".join(OTHERS))
        file.writestr("pages/pages.jsonl", "{}")
    return out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda: b"".join(WHOLE), id="plain"),
        pytest.param(lambda: gz(*WHOLE), id="gzip"),
        pytest.param(lambda: gz(b"".join(WHOLE)), id="one gzip stream over all"),
        pytest.param(lambda: framed(Lz4Writer, WHOLE), id="lz4"),
        pytest.param(lambda: framed(Lz4Writer, [b"".join(WHOLE)]), id="one LZ4 frame over all"),
        pytest.param(lambda: framed(ZstdWriter, WHOLE), id="zstd"),
        pytest.param(lambda: framed(ZstdWriter, [b"".join(WHOLE)]), id="one Zstandard frame over all"),
        pytest.param(zstd_with_dictionary, id="zstd with a dictionary"),
        pytest.param(lambda: wacz(zipfile.ZIP_STORED), id="wacz"),
        pytest.param(lambda: wacz(zipfile.ZIP_DEFLATED), id="packed wacz"),
    ],
)
def test_every_way_of_packing_gives_the_same_records(tmp_path, content):
    (tmp_path / "file").write_bytes(content())
    found = read(tmp_path / "file")
    assert [(r.kind, r.url) for r in found] == [
        ("warcinfo", None),
        ("request", "http://ex.com/0"),
        *(("response", f"http://ex.com/{i}") for i in range(5)),
    ]
    assert found[-1].block == http(b"<p>4 " * 200)
    assert found[0].block == b"" == found[1].block, "content of these kinds is not read"


@pytest.mark.parametrize("compress", [False, True])
def test_arc_files(tmp_path, compress):
    content = arc(("http://ex.com/a b?c=d e", http(b"one")), ("http://ex.com/2", http(b"two")))
    (tmp_path / "x.arc").write_bytes(gz(content[:100], content[100:]) if compress else content)
    found = read(tmp_path / "x.arc")
    assert [(r.kind, r.url) for r in found][1:] == [
        ("response", "http://ex.com/a%20b?c=d%20e"),
        ("response", "http://ex.com/2"),
    ]
    assert found[2].block == http(b"two")


def damaged(position: int, change) -> bytes:
    changed = list(WHOLE)
    changed[position] = change(changed[position])
    return b"".join(changed)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (damaged(3, lambda r: r.replace(b"WARC/1.1", b"WXRC/1.1", 1)), {"response": 4, "bad_record:header": 1}),
        (damaged(3, lambda r: r.replace(b"Length: ", b"Length: -", 1)), {"response": 4, "bad_record:digest": 1}),
        (damaged(3, lambda r: r.replace(b"<p>1 <p>", b"<p>9 <p>", 1)), {"response": 4, "bad_record:digest": 1}),
        (b"".join(WHOLE)[:-300], {"response": 4, "bad_record:truncated": 1}),
        (damaged(3, lambda r: b"\xff" * 5_000), {"response": 4, "bad_record:header": 1}),
        (gz(*WHOLE)[:-40], {"response": 4, "bad_record:truncated": 1}),
        (gz(*WHOLE[:3]) + b"\0" * 1000 + gz(*WHOLE[3:]), {"response": 5, "bad_record:header": 1}),
        (b"no archive at all", {"bad_record:header": 1}),
        (b"", {}),
        (b"PK\x03\x04 no zip", {"bad_record:header": 1}),
    ],
    ids=range(10),
)
def test_a_broken_record_is_counted_and_the_others_are_read(tmp_path, content, expected):
    (tmp_path / "file").write_bytes(content)
    found = summary(read(tmp_path / "file"))
    found.pop("warcinfo", None)
    found.pop("request", None)
    assert found == expected


def test_content_past_the_limit_is_not_read(tmp_path):
    (tmp_path / "x.warc").write_bytes(b"".join([WHOLE[2], warc("response", "http://ex.com/big", http(bytes(5000))), WHOLE[3]]))
    assert [(r.kind, r.problem) for r in read(tmp_path / "x.warc", max_bytes=4000)] == [
        ("response", None),
        ("bad_record", "too_large"),
        ("response", None),
    ]


def test_digests():
    assert digest_fits("sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ", b"")
    assert digest_fits("SHA-1:da39a3ee5e6b4b0d3255bfef95601890afd80709", b"")
    assert digest_fits("md5:d41d8cd98f00b204e9800998ecf8427e", b"")
    assert digest_fits("sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", b"")
    assert digest_fits(None, b"x") and digest_fits("unheard:abc", b"x") and digest_fits("sha1:", b"x")
    assert not digest_fits("sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ", b"x")
    assert not digest_fits("sha1:???", b"")


def test_odd_archives_can_be_read_to_their_end(tmp_path):
    total = sum((summary(read(path)) for path in odd_archives.write(tmp_path / "odd").iterdir()), Counter())
    expected = sum((Counter(outcome) for _, outcome in odd_archives.ALL.values()), Counter())
    assert total.total() == expected.total()
    for problem in ("header", "truncated", "digest"):
        assert total[f"bad_record:{problem}"] == expected[f"bad_{problem}"]


def test_all_real_archives_can_be_read_to_their_end():
    folder = real_data("C_warc")
    endings = (".warc", ".warc.gz", ".warc.lz4", ".arc", ".arc.gz", ".wacz", ".bad")
    files = sorted(path for path in folder.rglob("*") if path.name.endswith(endings))
    assert len(files) > 100
    total: Counter = sum((summary(read(path)) for path in files), Counter())
    assert total["response"] >= 560 and total["revisit"] >= 130
    bad = {kind: count for kind, count in total.items() if kind.startswith("bad_record")}
    assert set(bad) == {"bad_record:header", "bad_record:truncated", "bad_record:digest"}
    sound = [read(folder / name) for name in ("resiliparse_tests/warcfile.warc", "node-warc/books.toscrape.warc")]
    assert not any(record.problem for found in sound for record in found)


def in_three_packings(folder: Path) -> Path:
    """Write the archive of Wget again, without its packing and in one LZ4 frame."""
    packed = fixture("C_warc/wget/first.warc.gz").read_bytes()
    plain = gzip.decompress(packed)
    for end, content in (("", plain), (".gz", packed), (".lz4", framed(Lz4Writer, [plain]))):
        (folder / f"warcfile.warc{end}").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("find", "count"), [(in_three_packings, 46), (lambda _: real_data("C_warc/resiliparse_tests"), 50)], ids=["fixture", "real"]
)
def test_the_same_real_archive_in_three_packings(find, count, tmp_path):
    folder = find(tmp_path)
    files = (folder / f"warcfile.warc{end}" for end in ("", ".gz", ".lz4"))
    plain, packed, lz4 = ([(r.kind, r.id, r.block) for r in read(file)] for file in files)
    assert plain == packed == lz4 and len(plain) == count


MEMORY = """
import re, sys
from vlmdata.html.archive import records, volumes
for path in sys.argv[1:]:
    (volume,) = volumes(path)
    count = sum(record.kind == "response" for record in records(volume))
    print(count, re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_archive(tmp_path):
    """One process reads both: what its libraries take is in both peaks. ru_maxrss would not do, it begins at the parent's."""
    import random

    body = random.Random(0).randbytes(100_000)
    paths = [tmp_path / f"{count}.warc" for count in (20, 2500)]  # 2 and 250 MB
    for path in paths:
        with path.open("wb") as out:
            for i in range(int(path.stem)):
                out.write(warc("response", f"http://ex.com/{i}", http(body)))
    found = subprocess.run([sys.executable, "-c", MEMORY, *map(str, paths)], capture_output=True, text=True, check=True)
    (few, before), (many, after) = (map(int, line.split()) for line in found.stdout.splitlines())
    assert (few, many) == (20, 2500)
    assert after < before + 20_000, f"KiB: {before}, {after}"
