"""No name in data makes a source open a file outside its dataset. The tests try forty kinds of names with every source."""

import functools
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loader.tars import write_tar
from tests.pdf.write_pdf import PdfPage, pdf
from tests.servers import LoopbackServer, reply
from tests.sources.mds_shards import write_mds
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata import catalog
from vlmdata.sources.box_list import BoxList
from vlmdata.sources.coco import Coco
from vlmdata.sources.energon import Energon
from vlmdata.sources.files import Files
from vlmdata.sources.grit import Grit
from vlmdata.sources.hf_dataset import HfDataset
from vlmdata.sources.html import Html
from vlmdata.sources.img2dataset import Img2dataset
from vlmdata.sources.interleaved_tars import InterleavedTars
from vlmdata.sources.llava_json import LlavaJson
from vlmdata.sources.mds import Mds
from vlmdata.sources.messages import Messages
from vlmdata.sources.mmc4 import Mmc4
from vlmdata.sources.obelics_parquet import ObelicsParquet
from vlmdata.sources.pdf import Pdf
from vlmdata.sources.refcoco import Refcoco
from vlmdata.sources.url_list import UrlList
from vlmdata.sources.video import Video
from vlmdata.sources.visual_genome import VisualGenome
from vlmdata.sources.warc import Warc
from vlmdata.sources.webdataset import Webdataset
from vlmdata.web.url import parse_url

GOOD, SECRET = picture(8), picture(9)  # eight and nine pixels wide


@pytest.fixture(scope="module")
def server():
    with LoopbackServer({"/secret.png": reply(SECRET, headers={"Content-Type": "image/png"})}) as server:
        yield server


def names(folder: Path, server: LoopbackServer) -> list[str]:
    """Return names of the image beside the dataset's folder, of the served image, and of other files on the machine."""
    secret, served = folder.parent / "secret.png", server.url("/secret.png")
    port = served.split(":")[2].split("/")[0]
    up = ["../secret.png", "a/../../secret.png", "./../secret.png", "..//secret.png", "..\\secret.png", "in/../../secret.png"]
    coded = [
        "%2e%2e/secret.png",
        "..%2fsecret.png",
        "%252e%252e%252fsecret.png",
        "..%c0%afsecret.png",
        "\uff0e\uff0e/secret.png",
    ]
    whole = [f"{secret}", f"//{secret}", f"file://{secret}", f"FILE://{secret}", f"file:{secret}", f"file://localhost{secret}"]
    whole += [f"local://{secret}", "~/secret.png", "$HOME/secret.png"]
    chains = [f"{kind}::{served}" for kind in ("simplecache", "blockcache", "filecache", "SimpleCache")]
    chains += [f"simplecache::file://{secret}", f"zip://secret.png::{folder.parent}/secret.zip", f"zip://a::{served}"]
    chains += [f"a.png::{served}", f"reference://::{served}", f"dir://secret.png::file://{folder.parent}"]
    stores = [
        f"{kind}://127.0.0.1:{port}/secret.png" for kind in ("webhdfs", "ftp", "sftp", "smb", "arrow_hdfs", "S3", "gs", "abfs")
    ]
    stores += ["hf://datasets/a/b/c.png", "github://a:b@main/c.png", "memory://secret.png"]
    machine = ["/dev/zero", "/proc/self/environ", "/etc/passwd", "pipe.png", "link.png", "links/secret.png", "null.png"]
    windows = ["C:\\secret.png", "\\\\host\\share\\secret.png", "\\\\?\\C:\\secret.png", "//host/secret.png"]
    odd = [
        "nul\0.png",
        "x" * 5000,
        "x/" * 3000,
        "a\nb.png",
        "",
        " ",
        ".",
        "in",
        "data:image/png;base64,@@",
        "data:text/html,<p>",
    ]
    return [*up, *coded, *whole, *chains, *stores, *machine, *windows, *odd]


@pytest.fixture
def folder(tmp_path):
    """Make a dataset's folder with one good image, links and a pipe. Files beside the folder must not be opened."""
    folder = tmp_path / "data"
    (folder / "in").mkdir(parents=True)
    (folder / "good.png").write_bytes(GOOD)
    (tmp_path / "secret.png").write_bytes(SECRET)
    with zipfile.ZipFile(tmp_path / "secret.zip", "w") as archive:
        archive.writestr("secret.png", SECRET)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "links").symlink_to(tmp_path)
    (folder / "null.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    return folder


def coco(folder: Path, found: list[str]):
    images = [{"id": number, "file_name": name} for number, name in enumerate(found)]
    notes = [{"id": number, "image_id": number, "caption": "words"} for number in range(len(found))]
    (folder.parent / "coco.json").write_text(json.dumps({"images": images, "annotations": notes}))
    return Coco(path=str(folder.parent / "coco.json"), images=str(folder))


def files_table(folder: Path, found: list[str]):
    pq.write_table(pa.table({"file_name": found, "caption": ["words"] * len(found)}), folder / "metadata.parquet")
    return Files(path=str(folder), table="metadata.parquet")


def files_folder(folder: Path, found: list[str]):
    (folder / "good.txt").write_text("words")
    (folder / "good2.png").write_bytes(GOOD)
    (folder / "good2.txt").symlink_to("/etc/passwd")
    return Files(path=str(folder))


def llava_json(folder: Path, found: list[str]):
    turns = [{"from": "human", "value": "<image> what?"}, {"from": "gpt", "value": "words"}]
    (folder / "list.json").write_text(json.dumps([{"image": name, "conversations": turns} for name in found]))
    return LlavaJson(path=str(folder / "list.json"))


def mds(folder: Path, found: list[str]):
    """Shards by name. Here `good.png` and the files outside the folder are shards, too."""
    entry = write_mds(folder, [{"image": GOOD, "caption": b"words"}], {"caption": "str", "image": "bytes"}, "good.png")
    write_mds(folder.parent, [{"image": SECRET, "caption": b"words"}], {"caption": "str", "image": "bytes"}, "secret.png")
    entries = [{**entry, "raw_data": {**entry["raw_data"], "basename": name}} for name in found]
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": entries}))
    (folder.parent / "index.json").unlink()
    return Mds(path=str(folder))


def messages(folder: Path, found: list[str]):
    records = []
    for number, name in enumerate(found):
        part = {"type": "image_url", "image_url": {"url": name}} if number % 2 else {"type": "image", "image": name}
        user = {"role": "user", "content": [part, {"type": "text", "text": "what?"}]}
        records.append(json.dumps({"messages": [user, {"role": "assistant", "content": "words"}]}))
    (folder / "list.jsonl").write_text("\n".join(records))
    return Messages(path=str(folder / "list.jsonl"))


def hf_parquet(folder: Path, found: list[str], *, streaming: bool = False):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    table = {"image": [{"bytes": None, "path": name} for name in found], "caption": ["words"] * len(found)}
    storage = pa.table(
        table, pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("caption", pa.string())])
    )
    storage = storage.replace_schema_metadata(features.arrow_schema.metadata)
    pq.write_table(storage, folder / "train.parquet")
    return HfDataset(path=str(folder / "train.parquet"), streaming=streaming)


def html(folder: Path, found: list[str]):
    pictures = "".join(
        f'<p>A paragraph of some length before the picture.</p><img src="{name}" width="300" height="300">' for name in found
    )
    (folder / "page.html").write_text(f"<html><body><article>{pictures}</article></body></html>")
    return Html(path=str(folder))


def interleaved_tars(folder: Path, found: list[str]):
    write_tar(
        folder / "a.tar",
        [
            (f"{n}.json", json.dumps({"texts": [None, "words"], "images": [name, None]}).encode())
            for n, name in enumerate(found)
        ],
    )
    return InterleavedTars(path=str(folder / "a.tar"))


def webdataset_names(folder: Path, found: list[str]):
    """Make members with these names."""
    members = [(f"{name}{n}.png", GOOD) for n, name in enumerate(found) if "\0" not in name]
    write_tar(folder / "a.tar", members, tarfile.PAX_FORMAT)
    return Webdataset(path=str(folder / "a.tar"))


def webdataset_documents(folder: Path, found: list[str]):
    """Make documents whose JSON uses these file names, in vlmdata's form."""
    members = []
    for number, name in enumerate(found):
        facts = {"texts": [None, "words"], "images": ["https://h/a.png", None], "metadata": [{"file": name}, None]}
        members.append((f"{number}.json", json.dumps(facts).encode()))
    write_tar(folder / "a.tar", members)
    return Webdataset(path=str(folder / "a.tar"))


def energon(folder: Path, found: list[str]):
    webdataset_documents(folder, found)
    (folder / ".nv-meta").mkdir()
    (folder / ".nv-meta" / "split.yaml").write_text("split_parts: {train: [a.tar]}")
    (folder / ".nv-meta" / "dataset.yaml").write_text("__module__: megatron.energon\n__class__: CrudeWebdataset\n")
    return Energon(path=str(folder))


def img2dataset(folder: Path, found: list[str]):
    found = [*found, "link"]
    rows = {"key": found, "url": [f"https://h/{n}" for n in range(len(found))], "caption": ["words"] * len(found)}
    pq.write_table(pa.table({**rows, "status": ["success"] * len(found)}), folder / "00000.parquet")
    (folder / "00000").mkdir()
    (folder / "00000" / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "00000" / "good.png").write_bytes(GOOD)
    return Img2dataset(path=str(folder))


def url_list(folder: Path, found: list[str]):
    pq.write_table(pa.table({"url": found, "caption": ["words"] * len(found)}), folder / "list.parquet")
    return UrlList(path=str(folder / "list.parquet"))


def hf_addresses(folder: Path, found: list[str]):
    pq.write_table(pa.table({"url": found, "caption": ["words"] * len(found)}), folder / "list.parquet")
    return HfDataset(path=str(folder / "list.parquet"), url="url")


def mmc4(folder: Path, found: list[str]):
    records = [
        {"text_list": ["words"], "image_info": [{"raw_url": name, "matched_text_index": 0}], "url": name} for name in found
    ]
    (folder / "a.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    return Mmc4(path=str(folder / "a.jsonl"))


def mmc4_files(folder: Path, found: list[str]):
    records = [{"text_list": ["words"], "image_info": [{"image_name": name, "matched_text_index": 0}]} for name in found]
    (folder / "a.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    return Mmc4(path=str(folder / "a.jsonl"), images=str(folder))


def obelics_parquet(folder: Path, found: list[str]):
    pq.write_table(
        pa.table({"images": [[name, None] for name in found], "texts": [[None, "words"]] * len(found)}), folder / "a.parquet"
    )
    return ObelicsParquet(path=str(folder / "a.parquet"))


def visual_genome(folder: Path, found: list[str]):
    """Make addresses with these names as their folders. Images are named by number, and the last one exists."""
    (folder / f"{len(found)}.jpg").write_bytes(GOOD)
    (folder / "VG_100K").symlink_to(folder.parent)
    (folder.parent / "0.jpg").write_bytes(SECRET)
    (folder.parent / "1.jpg").write_bytes(SECRET)
    region = {"x": 1, "y": 1, "width": 2, "height": 2, "phrase": "words"}
    facts = [{"image_id": number, "url": f"http://h/{name}/{number}.jpg"} for number, name in enumerate(found)]
    entries = [{"id": number, "regions": [region]} for number in range(len(found) + 1)]
    for name, value in {"image_data": facts, "region_descriptions": entries}.items():
        (folder.parent / f"{name}.json").write_text(json.dumps(value))
    return VisualGenome(path=str(folder.parent), images=str(folder))


def refcoco(folder: Path, found: list[str]):
    images = [{"id": number, "file_name": name} for number, name in enumerate(found)]
    notes = [{"id": number, "image_id": number, "bbox": [1, 1, 2, 2]} for number in range(len(found))]
    refs = [{"image_id": n, "ann_id": n, "split": "train", "sentences": [{"sent": "words"}]} for n in range(len(found))]
    (folder.parent / "instances.json").write_text(json.dumps({"images": images, "annotations": notes}))
    (folder.parent / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    return Refcoco(path=str(folder.parent / "refs(unc).p"), images=str(folder))


def box_list(folder: Path, found: list[str]):
    records = [json.dumps({"image": name, "bbox": [1, 1, 2, 2], "phrase": "words"}) for name in found]
    (folder / "list.jsonl").write_text("\n".join(records))
    return BoxList(path=str(folder / "list.jsonl"), box_form="xyxy")


def grit(folder: Path, found: list[str]):
    rows = [{"url": name, "caption": "words", "ref_exps": [], "noun_chunks": [[0, 5, 0, 0, 1, 1, 0.9]]} for name in found]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return Grit(path=str(folder / "list.jsonl"))


def warc(folder: Path, found: list[str]):
    pictures = "".join(
        f'<p>A paragraph of some length before the picture.</p><img src="{name}" width="300" height="300">' for name in found
    )
    body = f"<html><body><article>{pictures}</article></body></html>".encode()
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + body
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: http://a.example/\r\nContent-Length: {len(answer)}\r\n\r\n"
    (folder / "a.warc").write_bytes(head.encode() + answer + b"\r\n\r\n")
    return Warc(path=str(folder / "a.warc"))


def pdfs(folder: Path, found: list[str]):
    """Make a PDF whose images, links and actions name these files, and a tar whose members have these names."""
    page = PdfPage()
    page.text(50, 50, "words")
    for number, name in enumerate(found):
        where = f"<{name.encode('utf-8', 'replace').hex()}>"
        page.picture((50, 60, 100, 110), b"", (9, 9), f"/F {where}")
        action = f"<</S/Launch/F {where}/Next<</S/URI/URI {where}/Next<</S/GoToR/F {where}/D[0/Fit]>>>>>>"
        page.head += f"/AA{number}<<>>" if number else f"/AA<</O {action}>>/Annots[<</Subtype/Link/Rect[0 0 9 9]/A {action}>>]"
    (folder / "a.pdf").write_bytes(pdf(page, catalog=f"/OpenAction<</S/JavaScript/JS({found[0]})>>"))
    members = [(f"{name}{n}.pdf", pdf(page)) for n, name in enumerate(found[:9]) if "\0" not in name]
    write_tar(folder / "a.tar", members, tarfile.PAX_FORMAT)
    (folder / "link.pdf").symlink_to("/etc/passwd")
    return Pdf(path=str(folder))


def video_tar(folder: Path, found: list[str]):
    """Make members with these names. None of them is a video."""
    members = [(f"{name}{n}.mp4", GOOD) for n, name in enumerate(found) if "\0" not in name]
    write_tar(folder / "a.tar", members, tarfile.PAX_FORMAT)
    return Video(path=str(folder / "a.tar"))


def video_addresses(folder: Path, found: list[str]):
    """Make a list whose addresses this source fetches itself."""
    pq.write_table(pa.table({"url": found}), folder / "list.parquet")
    return Video(path=str(folder / "list.parquet"), url="url")


NAMED = {  # sources that open files by names in data, or read a whole folder
    "coco": [coco],
    "box_list": [box_list],
    "files": [files_table, files_folder],
    "llava_json": [llava_json],
    "mds": [mds],
    "messages": [messages],
    "hf_dataset": [hf_parquet, functools.partial(hf_parquet, streaming=True)],
    "html": [html],
    "mmc4": [mmc4_files],
    "img2dataset": [img2dataset],
    "refcoco": [refcoco],
    "visual_genome": [visual_genome],
}
WITHIN = {
    "energon": [energon],
    "interleaved_tars": [interleaved_tars],
    "pdf": [pdfs],
    "webdataset": [webdataset_names, webdataset_documents],
    "warc": [warc],
    "video": [video_tar, video_addresses],
}
ADDRESSED = {
    "grit": [grit],
    "url_list": [url_list],
    "hf_dataset": [hf_addresses],
    "mmc4": [mmc4],
    "obelics_parquet": [obelics_parquet],
}
MAKERS = [maker for group in (NAMED, WITHIN, ADDRESSED) for makers in group.values() for maker in makers]


def test_every_source_is_tried():
    assert {*NAMED, *WITHIN, *ADDRESSED} == set(catalog.names("sources"))


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: getattr(make, "func", make).__name__)
def test_a_name_in_data_opens_only_files_of_the_dataset(make, folder, server, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    before = len(server.requests)
    hostile = [*names(folder, server), server.url("/secret.png").replace("http", "HTTP")]
    assert len(hostile) >= 40
    rows = read_all(make(folder, [*hostile, "good" if make is img2dataset else "good.png"])).to_pylist()
    assert len(server.requests) == before
    images = [image for row in rows for image in row["images"] or [] if image]
    assert [image for image in images if image["data"] == SECRET or image["width"] == 9] == []
    places = {image["blob"] for image in images if image["blob"] is not None}
    assert [place for place in places if not os.path.realpath(place).startswith(f"{os.path.realpath(folder)}/")] == []
    held = [image for image in images if image["blob"] is not None or image["data"] is not None]
    if any(make in makers for makers in NAMED.values()):
        assert held  # the good image was still read
    asked = [image["url"] for image in images if image not in held and image["reason"] is None]
    if not any(make in makers for makers in ADDRESSED.values()):  # these addresses are left to `download`, which refuses them
        assert [url for url in asked if parse_url(url) is None] == []
