"""Cost of each export format per 1,000 samples, beside copying the same tars and beside other libraries that write the same.

    python -m bench.exports [WORK] [--samples 500] [--formats parquet tars ...]

WORK gets datasets of caption pairs, documents and conversations with images of 10 kB of noise, which no compression shrinks: N
samples in one tar, and 10 N samples in ten tars. Each export runs in a new process. CPU seconds are those of that process
without its imports, for 10 N samples. Peak memory is that of the whole process, for N and 10 N samples. The floor of a format
copies the tars of its dataset. A peer reads the same tars, and writes the same kind of files as the format before it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from vlmdata.engine.output.pack import BLOCK, INDEX_FORMAT, RECORD, header
from vlmdata.loader.index.index_file import INDEX, IndexRow, index_table

TIMES = 10  # the larger dataset has this many times as many samples
IMAGE_BYTES, IMAGES = 10_000, 1000
FORMATS: list[tuple[str, str, dict[str, Any]]] = [  # (dataset, format, options)
    ("captions", "parquet", {}),
    ("captions", "hf", {}),
    ("captions", "tars", {}),
    ("captions", "folder", {}),
    ("captions", "img2dataset", {}),
    ("captions", "img2dataset", {"form": "files"}),
    ("captions", "energon", {}),
    ("captions", "mds", {}),
    ("documents", "parquet", {}),
    ("documents", "obelics", {}),
    ("documents", "mmc4", {}),
    ("documents", "mmc4", {"images": "base64"}),
    ("conversations", "messages", {}),
    ("conversations", "messages", {"form": "placeholders"}),
    ("conversations", "messages", {"form": "parquet"}),
    ("conversations", "llava", {}),
]


def members_of(kind: str, number: int, images: list[bytes]) -> tuple[str, dict[str, bytes]]:
    """Return a sample as (key, members): a pair, a document of two images, or a conversation about one image."""
    key = hashlib.sha256(str(number).encode()).hexdigest()[:24]
    image, text = images[number % IMAGES], "a sentence of a document or an answer, as long as many are. "
    facts: dict[str, Any] = {"key": key, "url": f"https://example.org/{number}"}
    if kind == "captions":
        facts |= {"caption": text, "width": 8, "height": 6, "original_width": 80, "original_height": 60}
        return key, {"json": json.dumps(facts).encode(), "png": image, "txt": text.encode()}
    texts = [text * 9, None, text * 9, None, text * 9] if kind == "documents" else [None, "What is it?", text * 3]
    pictures = [image, images[(number + 1) % IMAGES]][: texts.count(None)]
    names = iter([f"{place}.png" for place in range(len(pictures))])
    metadata = [{"file": next(names), "width": 8, "height": 6} if one is None else None for one in texts]
    facts |= {"texts": texts, "metadata": metadata, "images": [None if one else f"{facts['url']}.png" for one in texts]}
    facts |= {} if kind == "documents" else {"roles": ["user", "user", "assistant"]}
    return key, {**{f"{place}.png": data for place, data in enumerate(pictures)}, "json": json.dumps(facts).encode()}


def make_dataset(out: Path, kind: str, shards: int, each: int) -> None:
    """Write a finished dataset: tars, index and manifest."""
    random = np.random.default_rng(0)
    images = [b"\x89PNG" + random.bytes(IMAGE_BYTES) for _ in range(IMAGES)]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with pq.ParquetWriter(out / "index.parquet", INDEX, **INDEX_FORMAT) as index:
        for shard in range(shards):
            name, rows, position = f"{shard:05d}.tar", [], 0
            with (out / name).open("wb") as tar:
                for number in range(shard * each, (shard + 1) * each):
                    key, members = members_of(kind, number, images)
                    start, places = position, []
                    for member, data in sorted(members.items()):
                        tar.write(header(f"{key}.{member}", len(data)) + data + bytes(-len(data) % BLOCK))
                        places.append((member, position + BLOCK, len(data)))
                        position = tar.tell()
                    rows.append(IndexRow(key, name, start, position - start, places, 0, []))
                tar.write(bytes(2 * BLOCK) + bytes(-(position + 2 * BLOCK) % RECORD))
            index.write_table(index_table(rows))
    layout = {"samples": each, "layout": "captions" if kind == "captions" else "documents"}
    recipe = {"source": {"type": "webdataset"}, "steps": [], "shards": layout, "part_rows": 1000}
    count = shards * each
    manifest = {"rows": count, "kept": count, "dropped": [], "source": "", "recipe": recipe, "files": {}}
    (out / "manifest.json").write_text(json.dumps(manifest))


def copied(source: Path, target: Path) -> None:
    """Copy the tars: what every format must at least do."""
    target.mkdir()
    for tar in sorted(source.glob("*.tar")):
        with tar.open("rb") as old, (target / tar.name).open("wb") as new:
            shutil.copyfileobj(old, new, 1 << 20)


def by_webdataset(source: Path, target: Path) -> None:
    import webdataset

    target.mkdir()
    for tar in sorted(source.glob("*.tar")):
        with webdataset.TarWriter(str(target / tar.name), encoder=False, mtime=0) as writer:
            for sample in webdataset.WebDataset(str(tar), shardshuffle=False):
                writer.write({name: value for name, value in sample.items() if name == "__key__" or not name.startswith("__")})


def by_datasets(source: Path, target: Path) -> None:
    """Read the tars as a stream, and write a Parquet file for each tar with the columns of ours."""
    import datasets

    target.mkdir()
    kinds = {"__key__": datasets.Value("string"), "__url__": datasets.Value("string"), "png": datasets.Image(decode=False)}
    features = datasets.Features({**kinds, "txt": datasets.Value("string"), "json": datasets.Value("string")})
    for tar in sorted(source.glob("*.tar")):
        rows = datasets.load_dataset("webdataset", data_files=str(tar), split="train", streaming=True)
        rows = rows.cast_column("png", datasets.Image(decode=False))
        rows = rows.map(lambda row: {**row, "json": json.dumps(row["json"])}, features=features)
        rows.to_parquet(str(target / f"{tar.stem}.parquet"))


def by_img2dataset(source: Path, target: Path) -> None:
    """Read the tars with webdataset, and write the samples with img2dataset's writer, as its downloader calls it."""
    import webdataset
    from img2dataset.writer import WebDatasetSampleWriter

    from vlmdata.exports.img2dataset import COLUMNS, pa

    target.mkdir()
    empty = dict.fromkeys(COLUMNS)
    for shard, tar in enumerate(sorted(source.glob("*.tar"))):
        writer = WebDatasetSampleWriter(shard, str(target), True, 5, pa.schema(COLUMNS), "png")
        for number, sample in enumerate(webdataset.WebDataset(str(tar), shardshuffle=False)):
            facts = json.loads(sample["json"])
            key, text = f"{shard:05d}{number:03d}", sample["txt"].decode()
            own = {"caption": text, "url": facts["url"], "key": key, "status": "success", "width": 8, "height": 6}
            writer.write(sample["png"], key, text, {**empty, **own})
        writer.close()


PEERS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {  # peers of the formats for captions, without options
    "parquet": ("datasets, to_parquet", by_datasets),
    "tars": ("webdataset, TarWriter", by_webdataset),
    "img2dataset": ("img2dataset's writer", by_img2dataset),
}


def work_of(name: str, options: dict[str, Any]) -> Callable[[Path, Path], Any]:
    """Return the function that is measured, after its imports."""
    if name == "floor":
        return copied
    if name.startswith("peer "):
        import datasets  # noqa: F401
        import webdataset  # noqa: F401

        if name == "peer img2dataset":
            import img2dataset.writer  # noqa: F401
        return PEERS[name.removeprefix("peer ")][1]
    import vlmdata.exports
    from vlmdata.export_dataset import export

    vlmdata.exports.find(name)
    return lambda source, target: export(source, target, to=name, options=options)


def one(name: str, options: str, source: str, target: str) -> None:
    """Do one export in this process, and print its cost as JSON."""
    work = work_of(name, json.loads(options))
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    work(Path(source), Path(target))
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())  # ru_maxrss would include the parent process
    assert found is not None
    print(json.dumps({"cpu_s": cpu, "wall_s": time.monotonic() - began, "memory_mb": int(found[1]) / 1024}))


def cost(name: str, options: dict[str, Any], source: Path) -> dict[str, float] | None:
    """Return the cost of an export in a new process, or None if it fails."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        words = [sys.executable, "-W", "ignore", "-m", "bench.exports", "--one", name, json.dumps(options), str(source)]
        done = subprocess.run([*words, f"{folder}/target"], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def line(title: str, found: dict[str, float] | None, count: int, floor: float, small: dict[str, float] | None = None) -> float:
    """Print the cost of `count` samples, and the memory for fewer in `small`. Return the CPU seconds per 1,000 samples."""
    if found is None:
        return 0.0
    cpu, wall = (found[name] * 1000 / count for name in ("cpu_s", "wall_s"))
    of_floor = f"{cpu / floor:6.1f}" if floor else f"{1:6}"
    memory = f"{small['memory_mb']:6.0f}" if small else " " * 6
    print(f"{title:42} {cpu:8.3f} {of_floor} {wall:8.3f} {memory} {found['memory_mb']:6.0f}", flush=True)
    return cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, nargs="?", default=Path("bench-out") / "exports", help="folder of the datasets")
    parser.add_argument("--samples", type=int, default=500, help="samples of the smaller dataset, in one tar")
    parser.add_argument("--formats", nargs="*", default=[], help="only these formats")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(*arguments.one)
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    count = arguments.samples
    print(f"{count:,} and {TIMES * count:,} samples. Per 1,000: CPU s, of the floor, wall s. Peak MB of both", flush=True)
    floors: dict[str, float] = {}
    for kind, name, options in FORMATS:
        if arguments.formats and name not in arguments.formats:
            continue
        sources = [arguments.work / f"{kind}-{size}" for size in (count, TIMES * count)]
        if kind not in floors:
            for source, shards in zip(sources, (1, TIMES), strict=True):
                make_dataset(source, kind, shards, count)
            floors[kind] = line(f"{kind}: copying the tars", cost("floor", {}, sources[1]), TIMES * count, 0)
        title = " ".join((name, *(f"{option}={value}" for option, value in options.items())))
        small, large = (cost(name, options, source) for source in sources)
        line(f"{kind}: {title}", large, TIMES * count, floors[kind], small)
        if kind == "captions" and not options and name in PEERS:
            line(f"  {PEERS[name][0]}", cost(f"peer {name}", {}, sources[1]), TIMES * count, floors[kind])
    shutil.rmtree(arguments.work)


if __name__ == "__main__":
    main()
