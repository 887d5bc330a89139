"""A run reads real textbook figures and addresses that fail, and other tools read its tars."""

import io
import json
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from tests.engine.site import download, ledger, manifest, picture
from tests.real_data import real_data
from tests.servers import LoopbackServer, hang, raw, redirect, reply
from vlmdata import run
from vlmdata.demo import recipe as demo

pytestmark = pytest.mark.whole

JPEG = {"Content-Type": "image/jpeg"}
TROUBLE = {
    "missing": reply(status=404),
    "forbidden": reply(status=403),
    "busy": reply(status=429, headers={"Retry-After": "1"}),
    "hangs": hang,
    "half": reply(picture(1)[:400], headers=JPEG),
    "text": reply(b"this is a text", headers=JPEG),
    "cut": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + picture(2)[:1000]),
}
EXPECTED = (
    ("download", "http_404"),
    ("download", "http_403"),
    ("download", "http_429"),
    ("download", "timeout"),
    ("resize", "truncated"),
    ("resize", "not_an_image"),
    ("download", "truncated_body"),
)
Figures = list[tuple[str, bytes, str]]  # path on the server, content, caption


def bundled() -> Figures:
    """Return the figures of five textbooks that ship with the demo."""
    found = enumerate(demo.figures())
    return [(f"/{n}.jpg", (demo.HERE / "figures" / figure["file"]).read_bytes(), figure["caption"]) for n, figure in found]


def whole_textbooks() -> Figures:
    """Return all figures of six textbooks."""
    root = real_data("A_captioned")
    found = []
    for listing in [*sorted(root.glob("openstax/*/captions.jsonl")), *sorted(root.glob("openstax_small/*/captions.jsonl"))]:
        for number, line in enumerate(listing.read_text().splitlines()):
            figure = json.loads(line)
            path = f"/{listing.parent.name}/{number}{figure['image'][figure['image'].rindex('.') :]}"
            found.append((path, (listing.parent / figure["image"]).read_bytes(), figure["caption"] or figure["alt"]))
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("figures", "count", "each", "timeout_s"),
    [(bundled, 220, 2, 4), pytest.param(whole_textbooks, 4603, 40, 20, marks=pytest.mark.slow)],
)
def test_every_figure_arrives_as_served_and_every_failure_is_counted(
    figures: Callable[[], Figures], count: int, each: int, timeout_s: int, tmp_path
):
    found = figures()
    routes, served = {path: reply(body) for path, body, _ in found}, {path: body for path, body, _ in found}
    rows = [(path, caption) for path, _, caption in found]
    assert len(rows) == count
    for number in range(20):
        routes[f"/moved/{number}.jpg"] = redirect(rows[number][0])
        rows.append((f"/moved/{number}.jpg", f"a figure that moved, number {number}"))
        served[f"/moved/{number}.jpg"] = served[rows[number][0]]
    troubled = [(kind, f"/{kind}/{number}.jpg") for kind in TROUBLE for number in range(each)]
    with ExitStack() as servers:
        healthy = servers.enter_context(LoopbackServer(routes))
        urls = [healthy.url(path) for path, _ in rows]
        hosts = ["127.0.0.1"]
        for kind, route in TROUBLE.items():  # Each failing address has its own host, because the rows of a failing host wait.
            hosts.append(f"127.0.0.{len(hosts) + 1}")
            paths = [path for other, path in troubled if other == kind]
            server = servers.enter_context(LoopbackServer(dict.fromkeys(paths, route), host=hosts[-1]))
            urls += [server.url(path) for path in paths]
        rows += [(path, f"trouble of the kind {kind}, at {path}") for kind, path in troubled]
        table = pa.table({"url": urls, "caption": [text for _, text in rows]})
        pq.write_table(table, tmp_path / "urls.parquet")
        web = download(allowed_hosts=hosts, timeout_s=timeout_s, connect_timeout_s=20, max_wait_s=900)
        steps = [web, {"resize": {"mode": "no", "skip_reencode": True}}]
        recipe = {"source": {"type": "url_list", "path": str(tmp_path / "urls.parquet")}, "steps": steps}
        (tmp_path / "recipe.yaml").write_text(json.dumps({**recipe, "shards": {"samples": 1000}}))
        run(tmp_path / "recipe.yaml", tmp_path / "out", local=True, workers=2)
    made = manifest(tmp_path / "out")
    lines = ledger(tmp_path / "out")
    assert len(lines) == made["rows"] == len(rows) == count + 20 + 7 * each
    outcomes = Counter((line["step"], line["reason"]) for line in lines)
    assert outcomes.pop((None, None)) == made["kept"] == count + 20
    assert outcomes == dict.fromkeys(EXPECTED, each)
    tars = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    captions = dict(rows)
    keys = []
    for sample in webdataset.WebDataset(tars, shardshuffle=False, empty_check=False):
        facts = json.loads(sample["json"])
        path = "/" + facts["url"].split("/", 3)[3]
        keys.append(sample["__key__"])
        assert sample["txt"].decode() == captions[path]
        if path.endswith(".jpg") and sample["jpg"] == served[path]:
            continue
        with Image.open(io.BytesIO(sample["jpg"])) as ours, Image.open(io.BytesIO(served[path])) as theirs:
            assert sorted(ours.size) == sorted(theirs.size)  # a PNG, or a JPEG that needed rotation or conversion
    assert len(set(keys)) == count + 20
    loaded = datasets.load_dataset("webdataset", data_files=tars, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["__key__"] == keys
    assert np.asarray(loaded[0]["jpg"]).ndim in (2, 3)
