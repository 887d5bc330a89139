"""Sound and damaged archives are read as streams of records."""

import base64
import binascii
import gzip
import hashlib
import io
import re
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from fastwarc.stream_io import Lz4Writer, ZstdWriter, zstd_train_dictionary_from_samples

from bench.inputs.archives import arc, framed, gz, http, warc
from tests.archives import odd_archives
from tests.fixtures import fixture
from tests.real_data import real_data
from vlmdata.archives.digest import digest_fits, record_fits
from vlmdata.archives.read_archive import records, volumes
from vlmdata.archives.record import Record

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
def test_every_compression_gives_the_same_records(tmp_path, content):
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
def test_arc_files_of_both_versions_are_read(tmp_path, compress):
    content = arc(("http://ex.com/a b?c=d e", http(b"one")), ("http://ex.com/2", http(b"two")))
    (tmp_path / "x.arc").write_bytes(gz(content[:100], content[100:]) if compress else content)
    found = read(tmp_path / "x.arc")
    assert [(r.kind, r.url) for r in found][1:] == [
        ("response", "http://ex.com/a%20b?c=d%20e"),
        ("response", "http://ex.com/2"),
    ]
    assert found[2].block == http(b"two")


BLOCK = http(b"<p>hello")
SOUND_LINES = {
    b"http://ex.com/ 1.2.3.4 20240506070809 text/html %d": ("http://ex.com/", "20240506070809"),
    b"http://ex.com/a b 1.2.3.4 20240506070809 text/html; charset=utf-8 %d": ("http://ex.com/a%20b", "20240506070809"),
    b"http://ex.com/ 1.2.3.4 20240506070809 text/html 200 12345678901234 - 123 a.arc %d": ("http://ex.com/", "20240506070809"),
    b"http://ex.com/ 20240506070809 text/html %d": ("http://ex.com/", "20240506070809"),
    b"http://ex.com/ 1.2.3.4 20240506070809 %d": ("http://ex.com/", "20240506070809"),
    b"HTTP://ex.com/ unknown 20240506070809 no-type %d": ("HTTP://ex.com/", "20240506070809"),
    b"www.ex.com/ 1.2.3.4 20240506070809 text/html %d": ("http://www.ex.com/", "20240506070809"),
    b"http://ex.com/ 1.2.3.4 0123456789abcdef0123456789abcdef0 text/html %d": ("http://ex.com/", None),
    b"http://ex.com/a b 2001:db8::1 - text/html 200 hash - 123 a.arc %d": ("http://ex.com/a%20b", None),
    b"http://ex.com/ - 19970801 text/html %d": ("http://ex.com/", None),
    b"http://ex.com/ 1.2.3.4 text/html %d": ("http://ex.com/", None),
}
BAD_LENGTHS = (b"", b"-5", b"x", b"\xc2\xb2", b"7" * 5000, b"999", b"99999999999999")


@pytest.mark.parametrize("line", SOUND_LINES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda data: gz(data[:50], b"", data[50:], b"")])
def test_an_arc_header_with_a_valid_address_and_length_is_accepted(tmp_path, line, pack):
    record = line % len(BLOCK) + b"\n" + BLOCK + b"\n"
    for version in (b"", arc()):
        (tmp_path / "x.arc").write_bytes(pack(version + record + record))
        found = [r for r in read(tmp_path / "x.arc") if r.kind != "warcinfo"]
        assert [(r.kind, r.url, r.headers.get("warc-date"), r.block) for r in found] == [
            ("response", *SOUND_LINES[line], BLOCK),
            ("response", *SOUND_LINES[line], BLOCK),
        ]


@pytest.mark.parametrize("length", BAD_LENGTHS)
def test_a_bad_length_in_an_arc_loses_one_page(tmp_path, length):
    content = arc(("http://ex.com/1", BLOCK), ("http://ex.com/2", BLOCK), ("http://ex.com/3", BLOCK))
    lines = content.split(b"http://ex.com/2")
    (tmp_path / "x.arc").write_bytes(
        lines[0] + b"http://ex.com/2" + lines[1].replace(b" %d\n" % len(BLOCK), b" %s\n" % length, 1)
    )
    found = read(tmp_path / "x.arc", max_bytes=10_000)
    assert [r.url for r in found if r.kind == "response"] == ["http://ex.com/1", "http://ex.com/3"]
    assert [(r.kind, r.offset) for r in found if r.problem] == [("bad_record", len(lines[0]))]


def test_dns_records_in_an_arc_have_separate_kinds(tmp_path):
    look_ups = ("dns:ex.com", "DNS:ex.com", "whois://w.ex.com/ex.com", "mailto:a@ex.com", "news:comp.lang", "ftp://ex.com/a")
    for pack in (bytes, gzip.compress):
        (tmp_path / "x.arc").write_bytes(pack(arc(*((url, b"1.2.3.4\n\n") for url in look_ups), ("http://ex.com/", BLOCK))))
        kinds = [r.kind for r in read(tmp_path / "x.arc")]
        assert kinds == ["warcinfo", "dns", "dns", "whois", "mailto", "news", "resource", "response"]


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


def test_digests_are_checked():
    assert digest_fits("sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ", b"")
    assert digest_fits("SHA-1:da39a3ee5e6b4b0d3255bfef95601890afd80709", b"")
    assert digest_fits("md5:d41d8cd98f00b204e9800998ecf8427e", b"")
    assert digest_fits("sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", b"")
    assert digest_fits(None, b"x") and digest_fits("unheard:abc", b"x") and digest_fits("sha1:", b"x")
    assert not digest_fits("sha1:3I42H3S6NNFQ2MSVX7XZKYAYSCX5QBYJ", b"x")
    assert not digest_fits("sha1:???", b"")


def digest(data: bytes, algorithm: str = "sha1", encode=base64.b32encode) -> str:
    return f"{algorithm}:{encode(hashlib.new(algorithm, data).digest()).decode()}"


def test_a_digest_of_the_body_is_accepted_in_every_form():
    body = b"<p>hello" * 50
    packed = gzip.compress(body)
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed)
    block = http(chunks, extra="Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n")
    for algorithm in ("sha1", "md5", "sha256", "sha512"):
        for encode in (base64.b32encode, base64.b64encode, binascii.hexlify, base64.urlsafe_b64encode):
            for data in (block, chunks, packed, body):
                declared = digest(data, algorithm, encode)
                assert record_fits({"warc-block-digest": declared}, block, 10_000)
                assert record_fits({"warc-block-digest": declared.rstrip("=")}, block, 10_000)
            assert not record_fits({"warc-block-digest": digest(b"other", algorithm, encode)}, block, 10_000)
    wrong = {"warc-block-digest": digest(b"other")}
    assert record_fits({**wrong, "warc-payload-digest": digest(body)}, block, 10_000)
    assert not record_fits({**wrong, "warc-payload-digest": digest(body)}, block, 100), "not decoded past the limit"
    assert not record_fits({**wrong, "warc-payload-digest": "whirl:AAAA"}, block, 10_000)
    assert not record_fits({"warc-block-digest": digest(b"")}, b"HTTP/1.1 200 OK\r\nno end", 10_000)


def test_a_revisit_of_wget_with_the_digest_of_no_bytes_is_accepted(tmp_path):
    revisit = warc("revisit", "http://ex.com/0", http(b""), WARC_Block_Digest=digest(b""))
    (tmp_path / "x.warc.gz").write_bytes(gz(PAGES[0], revisit, PAGES[1]))
    assert summary(read(tmp_path / "x.warc.gz")) == {"response": 2, "revisit": 1}


EMPTY = {"gzip": gzip.compress(b"", mtime=0), "lz4": bytes.fromhex("04224d18604082") + bytes(4)}
EMPTY |= {"zstd": bytes.fromhex("28b52ffd2000010000"), "blank": gz(b"\r\n\r\n")}
PACKED = {"gzip": gz, "blank": gz, "lz4": lambda *parts: framed(Lz4Writer, [*parts])}
PACKED["zstd"] = lambda *parts: framed(ZstdWriter, [*parts])


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("each", [True, False], ids=["a frame each", "two streams"])
def test_empty_frames_are_skipped_everywhere(tmp_path, kind, each):
    pack, empty = PACKED[kind], EMPTY[kind]
    parts = [pack(record) for record in PAGES] if each else [pack(b"".join(PAGES[:3])), pack(b"".join(PAGES[3:]))]
    for number, content in enumerate(
        (empty + b"".join(parts), empty.join(parts), b"".join(parts) + empty, empty * 300 + (empty * 2).join(parts) + empty)
    ):
        (tmp_path / "file").write_bytes(content)
        assert [r.url for r in read(tmp_path / "file")] == [f"http://ex.com/{i}" for i in range(5)], number
    (tmp_path / "file").write_bytes(empty * 3)
    assert read(tmp_path / "file") == []


def test_empty_frames_are_not_damage_and_do_not_hide_damage(tmp_path):
    empty, broken = EMPTY["gzip"], gz(PAGES[1])[:-40] + bytes(40)
    (tmp_path / "file").write_bytes(gz(PAGES[0]) + empty + broken + empty + gz(PAGES[2]) + empty + b"no frame")
    assert summary(read(tmp_path / "file")) == {"response": 2, "bad_record:header": 2}


@pytest.mark.parametrize("pack", [b"".join, lambda parts: gz(*parts), lambda parts: gzip.compress(b"".join(parts))])
@pytest.mark.parametrize("spell", [bytes.lower, bytes.upper, bytes.capitalize])
@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_headers_in_any_spelling_and_with_any_line_break_are_read(tmp_path, pack, spell, end):
    def spelled(record: bytes) -> bytes:
        header, _, block = record.partition(b"\r\n\r\n")
        header = re.sub(rb"(?m)^[\w-]+:", lambda name: spell(name[0]), header)
        return header.replace(b"\r\n", end) + 2 * end + block

    (tmp_path / "file").write_bytes(pack([WHOLE[0], *(spelled(record) for record in WHOLE[1:5]), *WHOLE[5:]]))
    assert [(r.kind, r.url, r.block) for r in read(tmp_path / "file")] == [
        ("warcinfo", None, b""),
        ("request", "http://ex.com/0", b""),
        *(("response", f"http://ex.com/{i}", http(b"<p>%d " % i * 200)) for i in range(5)),
    ]


@pytest.mark.parametrize("pack", [b"".join, lambda parts: gz(*parts), lambda parts: gzip.compress(b"".join(parts))])
@pytest.mark.parametrize("stated", [b"99", b"999999", b"999999999999"])
def test_a_page_lost_by_a_false_length_is_counted(tmp_path, pack, stated):
    for number in (0, 1, 3):  # the lengths of the first record and of a request, whose content is not read, and of a page
        changed = [*WHOLE]
        changed[number] = re.sub(rb"Content-Length: \d+", b"Content-Length: " + stated, changed[number], count=1)
        (tmp_path / "file").write_bytes(pack(changed))
        found = read(tmp_path / "file")
        pages = {r.url for r in found if r.kind == "response"}
        lost = {f"http://ex.com/{i}" for i in range(5)} - pages
        assert len(lost) <= sum(r.kind == "bad_record" for r in found), "each page is found or counted"
        assert len(lost) <= (number == 3)


@pytest.mark.parametrize("pack", [b"".join, lambda parts: gz(*parts), lambda parts: gzip.compress(b"".join(parts))])
@pytest.mark.parametrize("which", [[0], [1], [4], [1, 2], range(5)])
def test_a_version_in_lower_case_is_accepted(tmp_path, pack, which):
    (tmp_path / "file").write_bytes(
        pack([page.replace(b"WARC/1.1", b"warc/1.1", 1) if n in which else page for n, page in enumerate(PAGES)])
    )
    assert summary(read(tmp_path / "file")) == {"response": len(PAGES)}


@pytest.mark.parametrize("kind", ["request", "resource"])
@pytest.mark.parametrize("pack", [b"".join, lambda parts: gz(*parts), lambda parts: gzip.compress(b"".join(parts))])
def test_false_lengths_are_read_in_linear_time(tmp_path, kind, pack):
    """Each record states more bytes than the file has. A reader that trusts the lengths would read the rest of the file each
    time."""
    record = re.sub(rb"Content-Length: \d+", b"Content-Length: 90000000", warc(kind, "http://ex.com/", bytes(2000)))

    def seconds(count: int) -> float:
        (tmp_path / "file").write_bytes(pack([record] * count))
        start = time.process_time()
        assert [one.problem for one in read(tmp_path / "file")] == ["truncated"] * count
        return time.process_time() - start

    assert seconds(3000) < 9 * seconds(600) + 0.5  # 25 times as long if each record reads the rest


def test_odd_archives_are_read_to_their_end(tmp_path):
    total = sum((summary(read(path)) for path in odd_archives.write(tmp_path / "odd").iterdir()), Counter())
    expected = sum((Counter(outcome) for _, outcome in odd_archives.ALL.values()), Counter())
    assert total.total() == expected.total()
    for problem in ("header", "truncated", "digest"):
        assert total[f"bad_record:{problem}"] == expected[f"bad_{problem}"]


def test_all_real_archives_are_read_to_their_end():
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
    """Write the archive of Wget plain, as it is, and in one LZ4 frame."""
    packed = fixture("C_warc/wget/first.warc.gz").read_bytes()
    plain = gzip.decompress(packed)
    for end, content in (("", plain), (".gz", packed), (".lz4", framed(Lz4Writer, [plain]))):
        (folder / f"warcfile.warc{end}").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("find", "count"), [(in_three_packings, 46), (lambda _: real_data("C_warc/resiliparse_tests"), 50)], ids=["fixture", "real"]
)
def test_one_real_archive_in_three_compressions_gives_the_same_records(find, count, tmp_path):
    folder = find(tmp_path)
    files = (folder / f"warcfile.warc{end}" for end in ("", ".gz", ".lz4"))
    plain, packed, lz4 = ([(r.kind, r.id, r.block) for r in read(file)] for file in files)
    assert plain == packed == lz4 and len(plain) == count


MEMORY = """
import re, sys
from vlmdata.archives.read_archive import records, volumes
for path in sys.argv[1:]:
    (volume,) = volumes(path)
    count = sum(record.kind == "response" for record in records(volume))
    print(count, re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.slow
def test_memory_is_independent_of_the_archive_size(tmp_path):
    """One process reads both archives, so both peaks include its libraries. ru_maxrss would include the memory of the parent
    process."""
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
