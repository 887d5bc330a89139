"""A dataset that the command line builds is exported and built again from the export, and comes out as it was."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.engine.site import download
from tests.fixtures import Find, fixture
from tests.real_data import real_data
from tests.servers import LoopbackServer, reply
from tests.sources.pictures import picture
from vlmdata.cli import main
from vlmdata.fields import FIELDS

pytestmark = pytest.mark.whole

EVERYTHING = [  # format, options, the source that reads it, the path within the export
    *[("tars", {}, "webdataset", ""), ("energon", {}, "energon", ""), ("mds", {}, "mds", ""), ("folder", {}, "files", "")],
    *[("hf", {}, "hf_dataset", ""), ("parquet", {}, "hf_dataset", "")],
]
OF_PAIRS = [("img2dataset", {"form": form}, "img2dataset", "") for form in ("webdataset", "files")]
OF_DOCUMENTS = [
    ("obelics", {}, "obelics_parquet", "data"),
    *[("mmc4", {"images": images}, "mmc4", "") for images in ("files", "base64")],
]
OF_CHATS = [
    *[("messages", {"form": form}, "messages", "messages.jsonl") for form in ("parts", "placeholders")],
    *[("messages", {"form": "parquet"}, "messages", "data"), ("llava", {}, "llava_json", "llava.json")],
]
CASES = [
    *[("odd", *case) for case in (*EVERYTHING, *OF_PAIRS)],
    *[("documents", *case) for case in (*EVERYTHING, *OF_DOCUMENTS)],
    *[("conversations", *case) for case in (*EVERYTHING, *OF_CHATS)],
]
NEW = ("key", "files", "source_key", "earlier_scores")  # fields that name the sample's place, or come with the source


def build(folder: Path, name: str, source: Mapping[str, Any], layout: str, steps: list[Any] | None = None) -> Path:
    """Build a dataset with the command line, and return its folder."""
    recipe = {"source": dict(source), "steps": steps or [], "shards": {"layout": layout, "samples": 5}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["run", str(folder / f"{name}.yaml"), "--out", str(folder / name), "--local", "--workers", "1", "-q"]) == 0
    assert json.loads((folder / name / "manifest.json").read_text())["dropped"] == []
    return folder / name


def export(out: Path, target: Path, to: str, options: Mapping[str, str]) -> None:
    """Export a dataset with the command line. No sample may be left out."""
    settings = [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
    assert main(["export", str(out), str(target), "--to", to, *settings]) == 0
    assert not (target / "left_out.log").exists()


def samples(out: Path) -> list[tuple[dict[str, Any], dict[str, bytes]]]:
    """Return the JSON and the other members of each sample, in the order of the dataset."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, name = member.name.partition(".")
                found.setdefault(key, {})[name] = tar.extractfile(member).read()
    return [(json.loads(members.pop("json")), members) for members in found.values()]


def content(facts: dict[str, Any], members: dict[str, bytes], *, whole: bool) -> tuple[Any, ...]:
    """Return what must stay equal. Without `whole`, these are texts, roles, images and the source's columns."""
    facts = without_hashes(facts)
    kept = {name: value for name, value in facts.items() if name not in NEW and (whole or name not in FIELDS)}
    for name in ("matched_sim", "id"):  # columns that the source `mmc4` and the export `llava` add
        kept.pop(name, None)
    said = tuple(facts.get(name) for name in ("url", "texts", "roles", "turns", "tools"))
    return said, members, kept


def without_hashes(value: Any) -> Any:
    """Return JSON without hashes of files, which only some sources state. The bytes of the images are compared instead."""
    if isinstance(value, dict):
        return {name: without_hashes(one) for name, one in value.items() if name != "sha256"}
    return [without_hashes(one) for one in value] if isinstance(value, list) else value


def make_odd(folder: Path) -> None:
    """Write images of unusual kinds with unusual names and texts, and JSON beside them."""
    folder.mkdir()
    frames = [Image.new("RGB", (40, 30), (number * 60, 0, 0)) for number in range(3)]
    images = {
        "CMYK ü.jpg": encoded(frames[1].convert("CMYK"), "JPEG"),
        "16 bit.png": encoded(Image.new("I;16", (40, 30), 3000), "PNG"),
    }
    images |= {
        f"moves {kind}.{kind.lower()}": encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        for kind in ("GIF", "WEBP")
    }
    images |= {"日本 语.avif": encoded(frames[2], "AVIF"), "a'b\"c.bmp": picture(9, 7, "BMP"), "t.tiff": picture(9, 8, "TIFF")}
    texts = ["tab\tline\nend", "\u202eעברית\u202c 👩\u200d👧", "a\u0001b", "word " * 50_000, '["a", "b"', "42", "null"]
    for (name, data), text in zip(images.items(), texts, strict=True):
        (folder / name).write_bytes(data)
        facts = {
            "caption": text,
            "nothing": None,
            "some": None if len(text) % 2 else 5,
            "list": [1, None, "x"],
            "ü.v": {"w": None},
        }
        (folder / Path(name).with_suffix(".json")).write_text(json.dumps(facts))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Return a function that builds a dataset of a kind, once, from the files that `find` finds."""
    made: dict[tuple[str, Find], Path] = {}

    def dataset(kind: str, find: Find = fixture) -> Path:
        if (kind, find) not in made:
            folder = tmp_path_factory.mktemp(kind)
            if kind == "odd":
                make_odd(folder / "images")
            sources: dict[str, Any] = {
                "captions": lambda: {
                    "type": "files",
                    "path": str(find("A_captioned/coco_free_licence")),
                    "table": "manifest.jsonl",
                    "file": "image",
                    "caption": "captions",
                },
                "odd": lambda: {"type": "files", "path": str(folder / "images")},
                "documents": lambda: {"type": "html", "path": str(find("B2_sites_with_images/gutenberg"))},
                "conversations": lambda: {"type": "messages", "path": str(chats(find))},
            }
            made[kind, find] = build(folder, "out", sources[kind](), layout_of(kind))
        return made[kind, find]

    return dataset


def chats(find: Find) -> Path:
    return find("D_instruction/messages_demo" if find is fixture else "D_instruction/llamafactory_mllm_demo") / "mllm_demo.json"


def layout_of(kind: str) -> str:
    return "captions" if kind in ("captions", "odd") else "documents"


def round_trip(out: Path, folder: Path, kind: str, to: str, options: Mapping[str, str], source: str, inside: str) -> None:
    """Export a dataset, build it again from the export, and compare. Formats that hold everything also keep the old keys."""
    export(out, folder / "to", to, options)
    more = {"images": str(folder / "to" / "images")} if (to, options.get("images")) == ("mmc4", "files") else {}
    more |= {"folder": str(folder / "to")} if source == "messages" and inside.endswith(".jsonl") else {}
    again = build(folder, "again", {"type": source, "path": str(folder / "to" / inside), **more}, layout_of(kind))
    whole = (to, options, source, inside) in (*EVERYTHING, *OF_PAIRS)
    before, after = samples(out), samples(again)
    if whole:
        before.sort(key=lambda sample: sample[0]["key"] if to == "folder" else "")  # its files are read in the order of keys
        assert [facts["source_key"] for facts, _ in after] == [facts["key"] for facts, _ in before]
    found, expected = ([content(*sample, whole=whole) for sample in some] for some in (after, before))
    if (to, options, source, inside) in OF_CHATS:  # lists are read in the order of new keys
        found, expected = sorted(found, key=repr), sorted(expected, key=repr)
    assert found == expected


@pytest.mark.parametrize(("kind", "to", "options", "source", "inside"), CASES)
def test_a_dataset_built_from_an_export_is_the_exported_one(tmp_path, built, kind, to, options, source, inside):
    round_trip(built(kind), tmp_path, kind, to, options, source, inside)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "to", "options", "source", "inside"), [("captions" if kind == "odd" else kind, *case) for kind, *case in CASES]
)
def test_real_data_built_from_an_export_is_the_exported_one(tmp_path, built, kind, to, options, source, inside):
    round_trip(built(kind, real_data), tmp_path, kind, to, options, source, inside)


@pytest.mark.parametrize(
    ("to", "options", "source", "inside"),
    [("obelics", {"images": "urls"}, "obelics_parquet", "data"), ("mmc4", {}, "mmc4", "")],
)
def test_images_of_documents_are_fetched_again_from_their_addresses(tmp_path, to, options, source, inside):
    site = fixture("B2_sites_with_images/gutenberg")
    routes = {f"/{path.relative_to(site)}": reply(path.read_bytes()) for path in site.rglob("*.jpg")}
    with LoopbackServer(routes) as server:
        out = build(tmp_path, "out", {"type": "html", "path": str(site), "url": server.url("/")}, "documents")
        export(out, tmp_path / "to", to, options)
        again = build(tmp_path, "again", {"type": source, "path": str(tmp_path / "to" / inside)}, "documents", [download()])
        assert {request.path for request in server.requests} & routes.keys()
    found, expected = ([content(*sample, whole=False) for sample in samples(one)] for one in (again, out))
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    assert any(facts["images"] and any(facts["images"]) for facts, _ in samples(again))
