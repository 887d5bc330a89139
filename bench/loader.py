"""Cost of reading a sample and of computing a position: the stream against a bare loop and other loaders.

    python -m bench.loader [--overlay FOLDER ...] [--large]

Each method runs in a new process over the same 3,000 samples (a 384 x 384 JPEG of 50 kB, a caption, a JSON) in 6 tars with a
warm page cache. CPU seconds are those of that process without its imports. LitData, MosaicML Streaming (on their own formats)
and Energon (on a copy of the tars, prepared by its own command) are measured if an overlay folder holds them (pip install
--no-deps --target FOLDER, then add the modules they miss). `--large` adds an index of 100 million rows in 10,000 shards of
empty files, which needs 10 GB of disk and some minutes.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SHARDS, EACH, SIZE = 6, 500, 336


def make_set(folder: Path) -> None:
    """Write the tars. The images are smooth noise, so that a JPEG of quality 90 has the 50 kB of a photo."""
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(50):
        small = random.integers(0, 255, (96, 96, 3), np.uint8)
        fine = random.normal(0, 9, (384, 384, 3))
        pixels = np.clip(cv2.resize(small, (384, 384), interpolation=cv2.INTER_CUBIC) + fine, 0, 255).astype(np.uint8)
        pictures.append(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes())
    folder.mkdir()
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:05}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(EACH):
                row = shard * EACH + number
                for name, data in (
                    ("jpg", pictures[row % 50]),
                    ("json", json.dumps({"url": "x" * 280}).encode()),
                    ("txt", b"a caption " * 6),
                ):
                    info = tarfile.TarInfo(f"{row:09}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    print(f"3,000 samples, JPEGs of {sum(map(len, pictures)) / 50_000:.0f} kB", flush=True)


def floor(folder: Path) -> Callable[[], Iterable]:
    """Return a bare loop over an index in memory in random order, with one pread per member."""
    places = []
    for tar in sorted(folder.glob("*.tar")):
        file = os.open(tar, os.O_RDONLY)
        found: dict[str, list[tuple[str, int, int]]] = {}
        with tarfile.open(tar) as opened:
            for member in opened:
                key, _, name = member.name.partition(".")
                found.setdefault(key, []).append((name, member.offset_data, member.size))
        places += [(file, key, members) for key, members in found.items()]

    def samples() -> Iterable:
        for at in np.random.default_rng(0).permutation(len(places)).tolist():
            file, key, members = places[at]
            sample: dict[str, Any] = {"__key__": key}
            for name, offset, size in members:
                sample[name] = os.pread(file, size, offset)
            yield sample

    return samples


def vlmdata(folder: Path, batch: int | None = None) -> Callable[[], Iterable]:
    from vlmdata import stream
    from vlmdata.loader.stream import ReadOptions

    samples = stream(folder, batch_size=batch, reading=ReadOptions(cache=folder.parent / "cache"), torch=False)
    return lambda: samples if batch is None else itertools.chain.from_iterable(samples)


def webdataset(folder: Path, buffer: int = 0) -> Callable[[], Iterable]:
    import webdataset

    tars = [str(tar) for tar in sorted(folder.glob("*.tar"))]
    return lambda: webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).shuffle(buffer)


def datasets(folder: Path) -> Callable[[], Iterable]:
    import datasets

    files = [str(tar) for tar in sorted(folder.glob("*.tar"))]
    loaded = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    return lambda: loaded.cast_column("jpg", datasets.Image(decode=False)).shuffle(seed=0, buffer_size=1000)


def litdata(folder: Path) -> Callable[[], Iterable]:
    import litdata

    place = folder.parent / "litdata"
    if not place.exists():
        writer = litdata.streaming.Cache(str(place), chunk_bytes="25MB")
        for number, sample in enumerate(floor(folder)()):
            writer[number] = sample
        writer.done()
        writer.merge()
    return lambda: litdata.StreamingDataset(str(place), shuffle=True)


def streaming(folder: Path) -> Callable[[], Iterable]:
    import streaming

    place = folder.parent / "mds"
    if not place.exists():
        columns = {"__key__": "str", "jpg": "bytes", "json": "bytes", "txt": "bytes"}
        with streaming.MDSWriter(out=str(place), columns=columns) as writer:
            for sample in floor(folder)():
                writer.write(sample)
    streaming.base.util.clean_stale_shared_memory()
    loaded = streaming.StreamingDataset(local=str(place), shuffle=True, batch_size=1)
    return lambda: loaded


def energon(folder: Path) -> Callable[[], Iterable]:
    from megatron import energon
    from megatron.energon.cli.main import main as command

    place = folder.parent / "energon"
    if not place.exists():
        shutil.copytree(folder, place)
        options = "--non-interactive --no-progress --split-ratio 1,0,0 --sample-type CrudeWebdataset --num-workers 1"
        with contextlib.redirect_stdout(io.StringIO()):
            command(["prepare", *options.split(), str(place)], standalone_mode=False)

    @energon.stateless
    def as_it_is(sample: Any) -> Any:
        return sample

    class Encoder(energon.TaskEncoder):
        decoder = None
        cookers = [energon.Cooker(as_it_is)]  # noqa: RUF012

        @energon.stateless
        def encode_sample(self, sample: Any) -> Any:
            return sample

        def batch(self, samples: list) -> list:
            return samples

    def samples() -> Iterable:
        loaded = energon.get_train_dataset(
            str(place),
            batch_size=32,
            shuffle_buffer_size=1000,
            max_samples_per_sequence=100,
            worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
            task_encoder=Encoder(),
            repeat=False,
        )
        return itertools.chain.from_iterable(energon.get_savable_loader(loaded))

    return samples


def by_cv2(sample: Any) -> Any:
    """Decode and resize a sample with cv2, as users of the peers do."""
    image = sample["jpg"]["bytes"] if isinstance(sample["jpg"], dict) else sample["jpg"]
    pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def by_vlmdata(filter: str) -> Callable[[Any], Any]:
    from vlmdata.loader.decoding import Decode

    return Decode(SIZE, filter=filter)  # type: ignore[arg-type]


RAW: dict[str, Callable[[Path], Callable[[], Iterable]]] = {
    "bare index and pread": floor,
    "vlmdata": vlmdata,
    "vlmdata, batch 32": lambda folder: vlmdata(folder, 32),
    "webdataset": webdataset,
    "webdataset, shuffle 1000": lambda folder: webdataset(folder, 1000),
    "datasets, shuffle 1000": datasets,
    "LitData": litdata,
    "MosaicML Streaming": streaming,
    "Energon, batch 32, shuffle 1000": energon,
}


def measure(name: str, decoder: str, folder: Path) -> float:
    """Return samples per CPU second, over at least two seconds. A full epoch of raw samples, or one decoded sample, runs
    first."""
    cv2.setNumThreads(1)
    samples = RAW[name](folder)
    decode = {"": None, "cv2": by_cv2}.get(decoder) if decoder in ("", "cv2") else by_vlmdata(decoder)
    if decode is not None:
        import torch

        torch.set_num_threads(1)
        decode({**next(iter(samples())), "__seed__": 0, "__url__": ""})
    else:
        for _ in samples():
            pass
    count, start = 0, _cpu()
    while _cpu() - start < 2:
        for sample in itertools.islice(samples(), 1500 if decode else None):
            if decode is not None:
                decode(sample)
            count += 1
    return count / (_cpu() - start)


def _cpu() -> float:
    """Return the CPU seconds of this process and of the child processes that it waited for."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def in_process(arguments: list[str], overlays: list[str]) -> str | None:
    """Run one measurement in a new process. Return its output, or None if a module that it needs is not installed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(overlays), "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-m", "bench.loader", *arguments], env=environment, capture_output=True, text=True)
    if "ModuleNotFoundError" in done.stderr:
        return None
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else f"failed: {done.stderr.strip().splitlines()[-1]}"


def speed(folder: Path, overlays: list[str]) -> None:
    print("\n| raw | samples / CPU s | of the bare loop |\n|---|---|---|")
    base = 0.0
    for name in RAW:
        found = in_process(["--one", name, "", str(folder)], overlays)
        if found is None or found.startswith("failed"):
            print(f"| {name} | {found or 'not installed'} | |", flush=True)
            continue
        base = base or float(found)
        print(f"| {name} | {float(found):,.0f} | {float(found) / base:.2f} |", flush=True)
    print(f"\n| decoded, resized to {SIZE} | decoder | samples / CPU s |\n|---|---|---|")
    for name in RAW:
        for decoder in ("bilinear", "area") if name == "vlmdata" else ("cv2",) if name != "vlmdata, batch 32" else ():
            found = in_process(["--one", name, decoder, str(folder)], overlays)
            if found is not None and not found.startswith("failed"):
                print(f"| {name} | {decoder} | {float(found):,.0f} |", flush=True)


def shuffle_quality() -> None:
    """Print how many shards 32 consecutive samples come from, and how many of 256 samples share a run of 64 neighbours with
    another."""
    from vlmdata.loader.order.order import Order

    print("\n| shuffle of 1,000,000 samples, 100 shards | shards in 32 | pairs of one run in 256 | reads at once |")
    print("|---|---|---|---|")
    rows = 1_000_000
    buffered = np.arange(rows)
    random = np.random.default_rng(0)
    shards = random.permutation(100)
    buffered = (shards[:, None] * 10_000 + np.arange(10_000)).ravel()
    pool = buffered[:1000].copy()
    drawn = np.empty(200_000, np.int64)
    for at, slot in enumerate(random.integers(0, 1000, len(drawn)).tolist()):
        drawn[at], pool[slot] = pool[slot], buffered[1000 + at]
    orders = {
        "at random": (random.permutation(rows)[:200_000], "1,000,000 rows"),
        "vlmdata": (Order(rows, 1).at(0, np.arange(200_000)), "1,024 runs of 64"),
        "shards, then a buffer of 1,000": (drawn, "1 shard"),
    }
    for name, (order, reads) in orders.items():
        seen = np.mean([len(set(step)) for step in (order // 10_000).reshape(-1, 32)[::20].tolist()])
        runs = (order // 64)[: len(order) // 256 * 256].reshape(-1, 256)
        pairs = np.mean([sum(n * (n - 1) / 2 for n in np.bincount(run - run.min()).tolist() if n > 1) for run in runs[::20]])
        print(f"| {name} | {seen:.2f} | {pairs:.2f} | {reads} |", flush=True)


def resume(folder: Path) -> None:
    """Print the size of a state, the time to the first batch after a resume, and how many resumes gave exactly the remaining
    samples."""
    from vlmdata import stream
    from vlmdata.loader.stream import ReadOptions

    def fresh() -> Any:
        return stream(folder, batch_size=32, reading=ReadOptions(cache=folder.parent / "cache"), torch=False)

    whole = [sample["__key__"] for batch in fresh() for sample in batch if "__pad__" not in sample]
    exact, waits = 0, []
    for kill in range(1, 94, 6):
        first = fresh()
        given = [sample["__key__"] for batch in itertools.islice(first, kill) for sample in batch]
        state = first.state_dict()
        second = fresh()
        start = time.perf_counter()
        second.load_state_dict(state)
        batches = iter(second)
        got = [next(batches)]
        waits.append(time.perf_counter() - start)
        given += [sample["__key__"] for batch in itertools.chain(got, batches) for sample in batch if "__pad__" not in sample]
        exact += given == whole
    size = len(json.dumps(state))
    print(f"\nresume: exact {exact} of {len(waits)}, state {size} bytes, first batch {1e3 * float(np.median(waits)):.1f} ms")


def growth(folder: Path, rows: int, shards: int) -> None:
    """Print the time to open a made-up dataset, to its first batch, and for a position. Its tars are sparse files that hold
    only the headers of the first batch.
    """
    import pyarrow as pa

    from vlmdata.loader.index.index_file import INDEX, MEMBER, IndexWriter

    place, each, span = folder / f"{rows}", rows // shards, 52_224
    place.mkdir()
    with IndexWriter(place / "index.parquet") as writer:
        for shard in range(shards):
            with open(place / f"{shard:05}.tar", "wb") as tar:
                tar.truncate(each * span)
            numbers = np.arange(shard * each, (shard + 1) * each)
            begin = np.arange(each) * span
            offsets = (begin[:, None] + [512, 50_688, 51_712]).ravel()
            sizes = np.tile([50_000, 300, 60], each)
            members = pa.StructArray.from_arrays(
                [pa.array(["jpg", "json", "txt"] * each), pa.array(offsets), pa.array(sizes)], fields=list(MEMBER)
            )
            columns = [
                pa.array(numbers).cast(pa.string()),
                pa.DictionaryArray.from_arrays(np.zeros(each, np.int32), [f"{shard:05}.tar"]),
                pa.array(begin),
                pa.array(np.full(each, span)),
                pa.ListArray.from_arrays(pa.array(np.arange(each + 1, dtype=np.int32) * 3), members),
                pa.array(np.full(each, 60, np.int32)),
                pa.nulls(each, INDEX.field("images").type),
            ]
            writer.write(pa.Table.from_arrays(columns, schema=INDEX))
    in_process(["--headers", str(place)], [])
    start = time.perf_counter()
    in_process(["--resume", str(place)], [])
    made = time.perf_counter() - start
    found = [in_process(["--resume", str(place)], []) for _ in range(5)]
    opened, first, first_cpu, each_us, own = np.median([list(map(float, line.split())) for line in found if line], axis=0)
    size = (place / "index.parquet").stat().st_size / rows
    cells = [f"{rows:,}", f"{shards:,}", *(f"{figure:.1f}" for figure in (size, made, opened, first, first_cpu, each_us, own))]
    print(f"| {' | '.join(cells)} |", flush=True)


def write_headers(place: Path) -> int:
    """Write the headers that identify the samples of the first batch, through a separate cache. Return the number of
    samples."""
    samples, state = _in_the_middle(place, place.parent / "headers")
    index, position = samples.plan.datasets[0].index, state["position"] + samples.rank
    batch = index.locate(samples.plan.at(position + samples.world_size * np.arange(32)).rows)
    for sample in batch:
        with open(place / index.shards[sample.shard], "r+b") as tar:
            for name, offset, size in zip(sample.names, sample.offsets, sample.sizes, strict=True):
                info = tarfile.TarInfo(f"{sample.key}.{name}")
                info.size = size
                tar.seek(offset - 512)
                tar.write(info.tobuf())
    return len(batch)


def _in_the_middle(place: Path, cache: Path) -> tuple[Any, dict[str, Any]]:
    """Return a stream and a state in the middle of an epoch."""
    from vlmdata import stream
    from vlmdata.loader.stream import ReadOptions

    samples = stream(place, batch_size=32, seed=1, rank=2, world_size=3, reading=ReadOptions(cache=cache), torch=False)
    return samples, samples.state_dict() | {"position": samples.plan.epoch_size // 2 + 12_345}


def first_batch(place: Path) -> str:
    """Open a dataset, resume in the middle of an epoch, then plan 204,800 positions. Return the times and the memory."""
    before = _own()
    start = time.perf_counter()
    samples, state = _in_the_middle(place, place.parent / "cache")
    opened = time.perf_counter() - start
    start = time.perf_counter()
    start_cpu = _cpu()
    samples.load_state_dict(state)
    next(iter(samples))
    first, first_cpu = time.perf_counter() - start, _cpu() - start_cpu
    middle = samples.position
    start = _cpu()
    for portion in range(100):
        picks = samples.plan.at(np.arange(middle + portion * 2048, middle + (portion + 1) * 2048))
        samples.plan.datasets[0].index.locate(picks.rows)
    each = (_cpu() - start) / 204_800
    return f"{1e3 * opened} {1e3 * first} {1e3 * first_cpu} {1e6 * each} {_own() - before}"


def _own() -> float:
    """Return the memory of this process in MB, without the files that it maps."""
    _, resident, shared = map(int, Path("/proc/self/statm").read_text().split()[:3])
    return (resident - shared) * 4096 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--overlay", action="append", default=[])
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--one", nargs=3)
    parser.add_argument("--headers", type=Path)
    parser.add_argument("--resume", type=Path)
    options = parser.parse_args()
    if options.one:
        print(measure(options.one[0], options.one[1], Path(options.one[2])))
        return
    if options.headers:
        print(write_headers(options.headers))
        return
    if options.resume:
        print(first_batch(options.resume))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "set"
        make_set(folder)
        speed(folder, options.overlay)
        shuffle_quality()
        resume(folder)
        print("\n| rows | shards | bytes per row | first open, s | open, ms | first batch, ms | CPU ms | position, µs | MB |")
        print("|---|---|---|---|---|---|---|---|---|")
        for rows, shards in ((1_000_000, 100), (10_000_000, 1000), *([(100_000_000, 10_000)] if options.large else [])):
            growth(Path(place), rows, shards)


if __name__ == "__main__":
    main()
