"""The demo's recipe: `captions`, adapted to small pictures, a tiny CLIP and a local server."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vlmdata import recipe as recipes
from vlmdata.demo.server import TROUBLE
from vlmdata.recipe import Recipe

HERE = Path(__file__).parent
MIN_SCORE = 0.0  # the tiny CLIP's cosines are higher for true pairs, and lower for most shuffled pairs


def figures() -> list[dict[str, str]]:
    """Return the bundled figures, each with `file`, `caption` and `book`."""
    return [json.loads(line) for line in (HERE / "figures.jsonl").read_text().splitlines()]


def write_list(address: str, folder: Path) -> Path:
    """Write a list of addresses and captions to `folder`, and return the path of the list.

    Like lists from the web, it has correct pairs, wrong pairs, duplicates, and addresses that fail in different ways.
    """
    dice = random.Random(0)
    rows = [(f"{address}/figures/{figure['file']}", figure["caption"]) for figure in figures()]
    swapped = [(url, other) for (url, _), (_, other) in zip(rows[:40], rows[120:160], strict=True)]
    copies = [(f"{address}/copies/{name}", text) for name, text in _write_copies(folder)]
    troubles = [(f"{address}{path}", "A picture that its server will not give") for path in TROUBLE]
    others = [
        (f"{address}/{name}.jpg", "A picture that is not what it seems") for name in ("absent", "moved", "page", "optout")
    ]
    private = [("http://10.0.0.1/router.jpg", "An address that nobody on the web can mean")]
    wordless = [(f"{address}/figures/{figure['file']}", "IMG_0042.JPG") for figure in figures()[:8]]
    everything = [*rows, *rows[:12], *swapped, *copies, *troubles, *others, *private, *wordless]
    dice.shuffle(everything)
    path = folder / "urls.parquet"
    pq.write_table(pa.table({"url": [url for url, _ in everything], "caption": [text for _, text in everything]}), path)
    return path


def _write_copies(folder: Path) -> list[tuple[str, str]]:
    """Write copies of some figures at lower quality and four fifths of the size, like copies on other sites.

    Return the file name and the caption of each copy.
    """
    (folder / "copies").mkdir(parents=True, exist_ok=True)
    copies = []
    for figure in figures()[40:60]:
        with Image.open(HERE / "figures" / figure["file"]) as image:
            smaller = image.convert("RGB").resize((image.width * 4 // 5, image.height * 4 // 5))
        out = io.BytesIO()
        smaller.save(out, "JPEG", quality=70)
        (folder / "copies" / figure["file"]).write_bytes(out.getvalue())
        copies.append((figure["file"], figure["caption"]))
    return copies


def recipe(listing: Path) -> Recipe:
    """Return the captions recipe with the demo's parameters."""
    host: dict[str, Any] = {"allowed_hosts": ["127.0.0.1"], "host_requests_per_s": 0, "host_connections": 0, "retries": 0}
    changes: dict[str, Any] = {"source.path": str(listing), "shards.samples": 100, "part_rows": 64}
    changes |= {f"download.{name}": value for name, value in host.items()}
    changes |= {"resize.size": 128, "image_size.min_side": 72}  # the bundled figures are small
    changes |= {"clip_score.model": f"local-dir:{HERE / 'clip'}", "clip_score.min_score": MIN_SCORE}
    return recipes.load("captions", changes)
