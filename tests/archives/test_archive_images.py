"""ArchiveImages finds images in a collection of archives."""

import gzip
import os
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.inputs.archives import arc, gz, http, warc
from tests.fixtures import Find, fixture
from tests.real_data import real_data
from vlmdata.archives.archive_images import ArchiveImages
from vlmdata.archives.http_message import parse_response
from vlmdata.archives.image_index import address_key
from vlmdata.archives.read_archive import records, volumes
from vlmdata.archives.volume import Volume
from vlmdata.html.document import extract

JPEG = b"\xff\xd8\xff" + bytes(500)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(900)
DIGEST = {"WARC_Payload_Digest": "sha1:AAAA"}
FIRST = [
    warc("response", "http://ex.com/", http(b"<p>page")),
    warc("response", "http://EX.com:80/a%20b.jpg", http(JPEG, "image/jpeg"), **DIGEST),
    warc("response", "http://ex.com/gone.jpg", http(b"not found", "text/html", "404 Not Found")),
    warc("response", "http://ex.com/r.png", http(b"", "text/html", "302 Found", "Location: /x/p.png?1\r\n")),
    warc("response", "http://ex.com/loop", http(b"", "text/html", "301 Moved", "Location: /loop\r\n")),
    warc("response", "http://ex.com/cut.jpg", http(JPEG, "image/jpeg", extra="Content-Encoding: gzip\r\n") + b"\0"),
]
SECOND = [
    warc("revisit", "http://ex.com/again.jpg", http(b"", "image/jpeg"), **DIGEST),
    warc("response", "https://ex.com/x/p.png?1", http(PNG, "application/octet-stream")),
    warc("response", "https://ex.com/x/q.png", http(PNG, "application/octet-stream")),
    warc("resource", "http://ex.com/own.png", PNG, Content_Type="image/png"),
]


def write_all(folder, packing: str) -> list:
    first, second = b"".join(FIRST), b"".join(SECOND)
    if packing == "wacz":
        with zipfile.ZipFile(folder / "x.wacz", "w", zipfile.ZIP_DEFLATED) as out:
            out.writestr("archive/1.warc.gz", gz(*FIRST))
            out.writestr("archive/2.warc", second)
    elif packing == "members":
        (folder / "1.warc.gz").write_bytes(gz(*FIRST))
        (folder / "2.warc.gz").write_bytes(gz(*SECOND))
    elif packing == "one stream":
        (folder / "1.warc.gz").write_bytes(gzip.compress(first))
        (folder / "2.warc.gz").write_bytes(gzip.compress(second))
    else:
        (folder / "1.warc").write_bytes(first)
        (folder / "2.warc").write_bytes(second)
    return [volume for path in sorted(folder.iterdir()) for volume in volumes(path)]


@pytest.mark.parametrize("packing", ["plain", "members", "one stream", "wacz"])
def test_images_are_found_across_files_redirects_and_revisits(tmp_path, packing):
    with ArchiveImages(write_all(tmp_path, packing)) as images:
        found = {
            url: images.find(url).data
            for url in ("https://ex.com/a b.jpg", "http://ex.com/r.png#f", "http://ex.com/again.jpg", "http://ex.com/own.png")
        }
        assert list(found.values()) == [JPEG, PNG, JPEG, PNG]
        assert images.find("http://ex.com/r.png").url == "http://ex.com/x/p.png?1"
        missing = ["http://ex.com/", "http://ex.com/gone.jpg", "http://ex.com/loop", "http://ex.com/never.jpg"]
        assert [images.find(url) for url in missing] == [None] * 4


def test_images_in_arc_files(tmp_path):
    content = arc(("http://ex.com/p", http(b"page")), ("http://ex.com/i.jpg", http(JPEG, "image/jpeg")))
    for name, data in (("a.arc", content), ("b.arc.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(data)
        with ArchiveImages(volumes(tmp_path / name)) as images:
            assert images.find("http://ex.com/i.jpg").data == JPEG


def untyped(body: bytes, extra: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\n{extra}\r\n".encode() + body


def test_images_with_a_wrong_or_missing_type_are_found_by_their_bytes(tmp_path):
    packed = gzip.compress(JPEG)
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed)
    blocks = {
        "none": untyped(JPEG),
        "packed": untyped(chunks, "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
        **{
            kind: http(JPEG, kind)
            for kind in ("text/html", "idontexist", "text/plain", "image/x-foo", "image/png; charset=x", "")
        },
    }
    records = [warc("response", f"http://ex.com/{number}", block) for number, block in enumerate(blocks.values())]
    records += [warc("resource", "http://ex.com/resource", JPEG), warc("response", "http://ex.com/page", http(b"<p>page"))]
    records += [warc("response", "http://ex.com/part", http(JPEG, "image/jpeg", "206 Partial Content"))]
    (tmp_path / "x.warc.gz").write_bytes(gz(*records))
    (tmp_path / "x.arc").write_bytes(arc(("http://ex.com/arc", untyped(JPEG)), ("ftp://ex.com/a.jpg", JPEG)))
    with ArchiveImages([volume for path in tmp_path.iterdir() for volume in volumes(path)]) as images:
        found_urls = [*map(str, range(len(blocks))), "resource", "arc"]
        assert [images.find(f"http://ex.com/{name}").data for name in found_urls] == [JPEG] * len(found_urls)
        assert images.find("ftp://ex.com/a.jpg").data == JPEG
        assert images.find("http://ex.com/page") is None and images.find("http://ex.com/part") is None


def test_equivalent_addresses_have_one_key():
    same = ["http://EX.com:80/a%20b?x=1#f", "https://ex.com/a b?x=1", "https://ex.com:443/a%20b?x=%31"]
    assert len({address_key(url) for url in same}) == 1
    assert address_key("http://ex.com/a") != address_key("http://ex.com/A")


@pytest.mark.parametrize(
    ("find", "name", "referenced", "answered"),
    [
        (fixture, "wget/first.warc.gz", 9, 8),  # lost.jpg is missing in the collection
        (real_data, "node-warc/books.toscrape.warc", 20, 20),
        (real_data, "webarchive-discovery/wikipedia-mona-lisa/flashfrozen-jwat-recompressed.warc.gz", 12, 12),
        (real_data, "solrwayback/example_warc/IAH-20080430204825-00000-blackbook.warc.gz", 33, 25),
    ],
)
def test_real_pages_find_their_images_in_their_archive(find: Find, name: str, referenced: int, answered: int):
    found = volumes(find(f"C_warc/{name}"))
    image_urls: set[str] = set()
    found_urls: set[str] = set()
    with ArchiveImages(found) as images:
        for record in (record for volume in found for record in records(volume)):
            response = parse_response(record.block, max_bytes=10_000_000) if record.kind == "response" else None
            if response is None or response.status != 200 or response.media_type != "text/html":
                continue
            document = extract(response.body, record.url or "", charset_hint=response.charset)
            for image in filter(None, document.images):
                image_urls.add(image.url)
                if any(images.find(url) for url in (image.url, *image.others)):
                    found_urls.add(image.url)
    assert (len(image_urls), len(found_urls)) == (referenced, answered)


def test_workers_share_the_work_on_one_index(tmp_path):
    read: list[str] = []
    both_started = threading.Event()

    class Slow(Volume):
        def open(self):
            read.append(self.path)
            if len(set(read)) == len(found):
                both_started.set()
            assert both_started.wait(600), "no other worker reads the other archive in the meantime"
            return Volume.open(self)

    found = [Slow(volume.path, volume.member) for volume in write_all(tmp_path, "members")]
    (tmp_path / "index").mkdir()
    with ThreadPoolExecutor(4) as workers:
        made = list(workers.map(lambda _: ArchiveImages(found, folder=tmp_path / "index"), range(4)))
    assert sorted(read) == [volume.path for volume in found]
    assert [images.find("http://ex.com/again.jpg").data for images in made] == [JPEG] * 4
    assert not list((tmp_path / "index").glob("*.draft"))


def test_an_index_left_unfinished_is_written_again(tmp_path):
    found = write_all(tmp_path, "plain")
    (tmp_path / "index").mkdir()
    ArchiveImages(found, folder=tmp_path / "index")
    for path in list((tmp_path / "index").iterdir()):
        path.rename(path.with_name(path.name + ".draft"))
        os.truncate(path.with_name(path.name + ".draft"), 10)
    assert ArchiveImages(found, folder=tmp_path / "index").find("http://ex.com/own.png").data == PNG


def test_a_changed_archive_is_indexed_again(tmp_path):
    first = tmp_path / "1.warc"
    (tmp_path / "index").mkdir()
    for name in ("a", "b"):
        first.write_bytes(warc("response", f"http://ex.com/{name}.jpg", http(JPEG + name.encode() * 9, "image/jpeg")))
        os.utime(first, ns=(1, ord(name)))
        images = ArchiveImages(volumes(first), folder=tmp_path / "index")
        assert [url for url in "ab" if images.find(f"http://ex.com/{url}.jpg")] == [name]
