"""Images inline in records reach the tars byte for byte without a step that decodes them, and bytes that are not an image
are counted."""

import base64
import json
import tarfile
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.pictures import picture
from vlmdata import run
from vlmdata.recipe import parse

pytestmark = pytest.mark.whole

ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif"}
BODIES = {kind: picture(200 + number, 200, kind) for number, kind in enumerate(ENDINGS)}
OTHERS = [b"\0\0\0\x18ftypheic" + bytes(100), b"no image"]
ANSWER = {"role": "assistant", "content": "A thing."}


def as_addresses(folder: Path) -> dict:
    data = ["data:image/x;base64," + base64.b64encode(body).decode() for body in [*BODIES.values(), *OTHERS]]
    parts = [[{"type": "image_url", "image_url": {"url": one}}, {"type": "text", "text": "What?"}] for one in data]
    lines = [json.dumps({"messages": [{"role": "user", "content": content}, ANSWER]}) for content in parts]
    (folder / "m.jsonl").write_text("\n".join(lines))
    return {"type": "messages", "path": str(folder / "m.jsonl")}


def as_bytes(folder: Path) -> dict:
    turns = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A thing."}]
    records = [{"conversations": turns, "image": {"bytes": body, "path": None}} for body in [*BODIES.values(), *OTHERS]]
    pq.write_table(pa.Table.from_pylist(records), folder / "l.parquet")
    return {"type": "llava_json", "path": str(folder / "l.parquet")}


def as_column(folder: Path) -> dict:
    images = [{"bytes": body, "path": None} for body in [*BODIES.values(), *OTHERS]]
    pq.write_table(pa.table({"image": images, "caption": ["A thing."] * len(images)}), folder / "h.parquet")
    return {"type": "hf_dataset", "path": str(folder / "h.parquet")}


@pytest.mark.parametrize(("made", "layout"), [(as_addresses, "documents"), (as_bytes, "documents"), (as_column, "captions")])
def test_inline_images_are_kept_byte_for_byte(tmp_path, made, layout):
    manifest = run(parse({"source": made(tmp_path), "shards": {"layout": layout}}), tmp_path / "OUT", local=True, workers=1)
    lost = [(line["reason"], line["rows"]) for line in manifest["dropped"]]
    assert (manifest["kept"], sorted(lost)) == (len(BODIES), [("not_an_image", 1), ("unsupported_format", 1)])
    with tarfile.open(tmp_path / "OUT" / "00000.tar") as tar:
        members = {name: tar.extractfile(name).read() for name in tar.getnames()}
    facts = [json.loads(data) for name, data in members.items() if name.endswith(".json")]
    found = {}
    for about in facts:
        image = next(one for one in about["metadata"] if one) if layout == "documents" else about
        (name,) = [name for name in members if name.startswith(about["key"]) and name.rpartition(".")[2] in ENDINGS.values()]
        found[name.rpartition(".")[2]] = members[name]
        assert (image["sha256"], image["height"]) == (sha256(members[name]).hexdigest(), 200)
        assert image["width"] == 200 + list(ENDINGS.values()).index(name.rpartition(".")[2])
    assert found == {ENDINGS[kind]: body for kind, body in BODIES.items()}


def test_inline_images_are_decoded_like_downloaded_ones_if_the_recipe_downloads(tmp_path):
    steps = [{"download": {"allowed_hosts": ["127.0.0.1"]}}]
    recipe = parse({"source": as_addresses(tmp_path), "steps": steps, "shards": {"layout": "documents"}})
    manifest = run(recipe, tmp_path / "OUT", local=True, workers=1)
    assert manifest["kept"] == len(BODIES)
    with tarfile.open(tmp_path / "OUT" / "00000.tar") as tar:
        facts = [json.loads(tar.extractfile(name).read()) for name in tar.getnames() if name.endswith(".json")]
    assert {about["metadata"][0]["sha256"] for about in facts} == {sha256(body).hexdigest() for body in BODIES.values()}
