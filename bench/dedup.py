"""Cost of finding duplicates among hashes, texts and embeddings, compared with the usual library in the same run.

    pip install faiss-cpu datasketch rensa imagededup     # peers; a case without its library reports this
    python -m bench.dedup [CASE ...]

Each case runs in a new process, so that its memory peak is not that of another case (libraries included); wall and CPU time
exclude making the data. Peers marked * ran on a share of the queries or texts, and their cost is scaled up. Hashes: real
pHashes of the pictures in FOLDER (../shared/data, or made-up pictures), combined in pairs to a million hashes with the same
skew of bits; 5% are copies with up to 10 changed bits. Texts: 100 words, Zipf-distributed, 5% near copies. Embeddings: 512
wide, with a common direction and a falling spectrum like CLIP's, 10% near copies.
"""

import functools
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.inputs.real_data import ROOT

DATA = ROOT / "A_captioned/openstax_small"
Result = dict[str, Any]


def timed(work: Callable[[], Any]) -> tuple[Any, Result]:
    wall, cpu = time.perf_counter(), time.process_time()
    value = work()
    return value, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def scaled(built: Result, cost: Result, factor: float, found: int) -> Result:
    """Return the cost of all queries, extrapolated from some of them. Pairs are halved because each is found from both ends."""
    return {key: built[key] + cost[key] * factor for key in cost} | {"found": int(found * factor / 2), "scaled": 1}


def real_hashes() -> np.ndarray:
    import cv2

    from vlmdata.images.decode import decode
    from vlmdata.images.phash import phash

    paths = sorted(DATA.rglob("*.jpg"))[:1500]
    if paths:
        return np.array([phash(decode(path.read_bytes(), max_pixels=10**8).pixels) for path in paths], np.uint64)
    random = np.random.default_rng(0)
    made = [cv2.resize(random.integers(0, 255, (7, 9, 3), dtype=np.uint8), (256, 192)) for _ in range(1500)]
    return np.array([phash(pixels) for pixels in made], np.uint64)


def hashes(count: int) -> np.ndarray:
    random, real = np.random.default_rng(1), real_hashes()
    mask = random.integers(0, 2**64, count, dtype=np.uint64)
    left, right = real[random.integers(0, len(real), count)], real[random.integers(0, len(real), count)]
    found = (left & mask) | (right & ~mask)
    copies = random.choice(count, count // 20, replace=False)
    source = found[random.integers(0, count, len(copies))]
    for _ in range(10):
        flips = np.uint64(1) << random.integers(0, 64, len(copies)).astype(np.uint64)
        source ^= np.where(random.random(len(copies)) < 0.4, flips, np.uint64(0))
    found[copies] = source
    return found


def texts(count: int) -> list[str]:
    random = np.random.default_rng(2)
    words = np.array(["w" + np.base_repr(number, 36).lower() for number in range(50_000)])
    rows = np.minimum(random.zipf(1.2, (count, 100)), len(words)) - 1
    for place in range(count // 20):
        rows[-1 - place] = rows[place]
        rows[-1 - place, random.integers(0, 100, 2)] = random.integers(0, len(words), 2)
    return [" ".join(row) for row in words[rows]]


def embeddings(count: int) -> np.ndarray:
    random = np.random.default_rng(3)
    found = random.standard_normal((count, 512), np.float32) * np.linspace(2, 0.3, 512, dtype=np.float32) + np.float32(0.5)
    copies = random.choice(count, count // 10, replace=False)
    found[copies] = found[random.integers(0, count, len(copies))]
    distance = random.uniform(0.1, 0.7, (len(copies), 1)).astype(np.float32)
    found[copies] += random.standard_normal((len(copies), 512), np.float32) * distance
    return found


def hamming_ours(count: int = 1_000_000, distance: int = 8) -> Result:
    from vlmdata.similarity.hamming import pairs_within

    data = hashes(count)
    pairs, cost = timed(lambda: pairs_within(data, distance, threads=2))
    sample = np.random.default_rng(4).choice(count, 300, replace=False)
    brute = sum(int((np.bitwise_count(data ^ data[row]) <= distance).sum()) - 1 for row in sample)
    return cost | {"found": len(pairs), "recall": f"{np.isin(pairs, sample).sum()} of {brute}"}


def hamming_faiss(kind: str) -> Result:
    import faiss

    faiss.omp_set_num_threads(2)
    data = hashes(1_000_000)
    rows = data.view(np.uint8).reshape(-1, 8)
    index: Any = faiss.IndexBinaryFlat(64) if kind == "flat" else faiss.IndexBinaryMultiHash(64, 4, 16)
    queries = 2000 if kind == "flat" else 4000
    if kind != "flat":
        index.nflip = 2  # at least one of four 16-bit blocks differs in at most two bits, so distances up to 8 are exact
    _, built = timed(lambda: index.add(rows))
    (limits, _, _), cost = timed(lambda: index.range_search(rows[:queries], 9))  # faiss returns distances below 9
    return scaled(built, cost, len(data) / queries, int(limits[-1]) - queries)


def hamming_imagededup() -> Result:
    from imagededup.handlers.search.retrieval import HashEval
    from imagededup.methods import PHash

    names = {str(number): f"{value:016x}" for number, value in enumerate(hashes(1_000_000).tolist())}

    def search(queries: int) -> list[Any]:
        some = dict(list(names.items())[:queries])
        given = HashEval(names, some, PHash.hamming_distance, False, 8, "brute_force_cython", 2)
        return list(given.retrieve_results().values())

    _, built = timed(lambda: search(1))
    found, cost = timed(lambda: search(400))
    each = {key: max(cost[key] - built[key], 0) for key in cost}
    return scaled(built, each, len(names) / 399, sum(map(len, found)))


def minhash_ours() -> Result:
    from vlmdata.similarity.lsh import similar_text_edges
    from vlmdata.similarity.minhash import grams_of, jaccard, sketch

    data = texts(200_000)
    _, sketching = timed(lambda: sketch(data, grams_of(5)))
    edges, cost = timed(lambda: similar_text_edges(data, 0.8, grams_of(5)))
    planted = np.stack([np.arange(10_000), len(data) - 1 - np.arange(10_000)], axis=1)
    alike = planted[jaccard(planted, data, grams_of(5)) >= 0.8]
    found = np.isin(alike[:, 0] * len(data) + alike[:, 1], edges[:, 0] * len(data) + edges[:, 1])
    note = f"signatures alone {sketching['cpu'] / len(data) * 1e6:.1f} us per text"
    return cost | {"found": len(edges), "recall": f"{found.sum()} of {len(alike)}", "note": note}


def shingles(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[place : place + 5]) for place in range(len(words) - 4)]


def minhash_rensa() -> Result:
    from rensa import RMinHash, RMinHashLSH

    data = texts(200_000)

    def work() -> tuple[int, float]:
        start = time.process_time()
        sketches = []
        for text in data:
            sketch = RMinHash(num_perm=128, seed=1)
            sketch.update(shingles(text))
            sketches.append(sketch)
        signed = time.process_time() - start
        index = RMinHashLSH(threshold=0.8, num_perm=128, num_bands=16)
        found = 0
        for number, sketch in enumerate(sketches):
            found += sum(sketch.jaccard(sketches[other]) >= 0.8 for other in index.query(sketch))
            index.insert(number, sketch)
        return found, signed

    (found, signed), cost = timed(work)
    return cost | {"found": found, "note": f"signatures alone {signed / len(data) * 1e6:.1f} us per text"}


def minhash_datasketch() -> Result:
    from datasketch import MinHash, MinHashLSH

    data = texts(20_000)

    def work() -> tuple[int, float]:
        start = time.process_time()
        sketches = list(MinHash.generator(([s.encode() for s in shingles(text)] for text in data), num_perm=128, seed=1))
        signed = time.process_time() - start
        index = MinHashLSH(params=(21, 6), num_perm=128)
        found = 0
        for number, sketch in enumerate(sketches):
            found += sum(sketch.jaccard(sketches[other]) >= 0.8 for other in index.query(sketch))
            index.insert(number, sketch)
        return found, signed

    (found, signed), cost = timed(work)
    note = f"signatures alone {signed / len(data) * 1e6:.1f} us per text"
    return {key: value * 10 for key, value in cost.items()} | {"found": found * 10, "scaled": 1, "note": note}


def cosine_ours() -> Result:
    from vlmdata.similarity.cosine import pairs_above, quantise

    data = embeddings(100_000)
    pairs, cost = timed(lambda: np.concatenate(list(pairs_above(quantise(data), 0.95, threads=2))))
    units = data / np.linalg.norm(data, axis=1, keepdims=True)
    sample = np.random.default_rng(4).choice(len(data), 2000, replace=False)
    rows = quantise(data).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    brute = int((rows[sample] @ rows.T > 0.95).sum()) - len(sample)
    float32 = int((units[sample] @ units.T > 0.95).sum()) - len(sample)
    note = f"fp32 vectors: {float32}"
    return cost | {"found": len(pairs), "recall": f"{np.isin(pairs, sample).sum()} of {brute}", "note": note}


def cosine_faiss(kind: str) -> Result:
    import faiss

    faiss.omp_set_num_threads(2)
    data = embeddings(100_000)
    data /= np.linalg.norm(data, axis=1, keepdims=True)
    queries = 5000
    index: Any = faiss.IndexFlatIP(512)
    if kind == "ivf":
        index = faiss.IndexIVFFlat(index, 512, 256, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = 8
        _, built = timed(lambda: (index.train(data[:20_000]), index.add(data)))
    else:
        _, built = timed(lambda: index.add(data))
    (limits, _, _), cost = timed(lambda: index.range_search(data[:queries], 0.95))
    return scaled(built, cost, len(data) / queries, int(limits[-1]) - queries)


def growth(count: int) -> Result:
    from vlmdata.similarity.hamming import distinct_pairs, edges_within
    from vlmdata.steps.dedupe_phash import kept_of_hashes

    data = hashes(count)
    find = functools.partial(distinct_pairs, distance=4, threads=2)
    found, cost = timed(lambda: sum(map(len, edges_within(data, 4, threads=2))))
    kept, whole = timed(lambda: len(np.unique(kept_of_hashes(data, np.arange(count), find))))
    return cost | {"found": found, "note": f"with keeping the best: {whole['wall']:.1f} s, {count - kept:,} dropped"}


CASES: dict[str, tuple[str, str, Callable[[], Result]]] = {
    "hamming": ("1 million hashes, pairs within 8", "", hamming_ours),
    "hamming-multihash": ("  faiss MultiHash, 2 flips", "faiss", lambda: hamming_faiss("multi")),
    "hamming-flat": ("  faiss BinaryFlat", "faiss", lambda: hamming_faiss("flat")),
    "hamming-imagededup": ("  imagededup, brute force in C++", "imagededup", hamming_imagededup),
    "minhash": ("200,000 texts, Jaccard >= 0.8", "", minhash_ours),
    "minhash-rensa": ("  rensa RMinHash 128, 16 bands", "rensa", minhash_rensa),
    "minhash-datasketch": ("  datasketch 128, 21 x 6", "datasketch", minhash_datasketch),
    "cosine": ("100,000 x 512, cosine > 0.95", "", cosine_ours),
    "cosine-flat": ("  faiss FlatIP", "faiss", lambda: cosine_faiss("flat")),
    "cosine-ivf": ("  faiss IVF256, 8 probes", "faiss", lambda: cosine_faiss("ivf")),
    "growth-100k": ("100,000 hashes, edges within 4", "", lambda: growth(100_000)),
    "growth-1m": ("1 million", "", lambda: growth(1_000_000)),
    "growth-10m": ("10 million", "", lambda: growth(10_000_000)),
}


def main(names: list[str]) -> None:
    if names[:1] == ["--case"]:
        result = CASES[names[1]][2]()
        print(json.dumps(result | {"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    print(f"{'':36}{'wall s':>9}{'CPU s':>9}{'ratio':>7}{'peak MB':>9}{'found':>12}  recall, notes")
    ours = 1.0
    for name in names or list(CASES):
        title, needed, _ = CASES[name]
        if needed and importlib.util.find_spec(needed) is None:
            print(f"{title:36}  not installed: pip install {needed}")
            continue
        run = subprocess.run([sys.executable, "-m", "bench.dedup", "--case", name], capture_output=True, text=True, check=True)
        one = json.loads(run.stdout.splitlines()[-1])
        if not title.startswith(" "):
            ours = one["wall"]
        star = "*" if one.get("scaled") else " "
        notes = ", ".join(filter(None, [one.get("recall", ""), one.get("note", "")]))
        print(
            f"{title:36}{one['wall']:8.1f}{star}{one['cpu']:8.1f}{star}{one['wall'] / ours:7.1f}"
            f"{one['rss']:9.0f}{one['found']:12,}  {notes}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
