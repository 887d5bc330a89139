"""A small web site of pictures on the loopback address, with a list of their addresses, for runs of the whole engine."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from tests.servers import LoopbackServer, Route, reply

KINDS = ("good",) * 12 + ("small", "missing", "half", "text")


@dataclass
class Site:
    """A web site with a list of its pictures: the recipe to run, and the requests that the site received."""

    server: LoopbackServer
    recipe: Path
    bodies: dict[str, bytes]  # path -> the bytes of a good picture

    def requests(self) -> list[str]:
        """Return the requested paths without robots.txt."""
        return [request.path for request in self.server.requests if request.path != "/robots.txt"]


def picture(number: int, side: int = 64) -> bytes:
    """Return a JPEG that differs for each number: smooth noise, which compresses and hashes like a photo."""
    noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


@contextlib.contextmanager
def site(folder: Path, count: int, *, steps: list[Any] | None = None, **shards: int) -> Iterator[Site]:
    """Serve `count` rows. Of every sixteen, twelve are good and one each is too small, missing, half a JPEG or a text named
    .jpg."""
    routes: dict[str, Route] = {}
    bodies = {}
    rows = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        path = f"/{kind}/{number}.jpg"
        body = picture(number, 16 if kind == "small" else 64)
        if kind in ("good", "small"):
            routes[path] = reply(body, headers={"Content-Type": "image/jpeg"})
            bodies[path] = body
        elif kind == "half":
            routes[path] = reply(body[: len(body) // 2], headers={"Content-Type": "image/jpeg"})
        elif kind == "text":
            routes[path] = reply(b"<html>sorry</html>", headers={"Content-Type": "image/jpeg"})
        rows.append((path, f"a picture of the number {number}"))
    with LoopbackServer(routes) as server:
        listing = folder / "urls.parquet"
        table = pa.table({"url": [server.url(path) for path, _ in rows], "caption": [text for _, text in rows]})
        pq.write_table(table, listing)
        tree = {
            "source": {"type": "url_list", "path": str(listing)},
            "steps": steps or [{"text_length": {}}, download(), {"resize": {"size": 48}}, {"image_size": {"min_side": 32}}],
            "shards": {"samples": shards.get("samples", 25)},
            "part_rows": shards.get("part_rows", 16),
        }
        recipe = folder / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(tree, sort_keys=False))
        yield Site(server, recipe, bodies)


def download(**changes: Any) -> dict[str, Any]:
    """Return a download step that may reach the loopback address, without a rate limit and with time limits for a busy
    machine."""
    free: dict[str, Any] = {"allowed_hosts": ["127.0.0.1"], "host_requests_per_s": 0, "host_connections": 0, "retries": 0}
    free |= {"timeout_s": 300, "connect_timeout_s": 300, "max_wait_s": 300}
    return {"download": {**free, **changes}}


def hashes(out: Path) -> dict[str, str]:
    """Return the SHA-256 of each published file of a dataset."""
    files = [path for path in out.rglob("*") if path.is_file() and "work" not in path.relative_to(out).parts]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def ledger(out: Path) -> list[dict[str, Any]]:
    """Return all lines of the ledger."""
    return pa.concat_tables([pq.read_table(path) for path in sorted((out / "ledger").glob("*.parquet"))]).to_pylist()


def manifest(out: Path) -> dict[str, Any]:
    """Return the manifest."""
    return json.loads((out / "manifest.json").read_text())
