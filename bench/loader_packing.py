"""Padding, mixing and balance of packs for the lengths of several kinds of training sets, with a window of a million samples.

    python -m bench.loader_packing [SAMPLES]

Mixed: the share of the variance of sample lengths that is between packs, beside that of random packs; 1 means that each pack
holds one length. Costliest: the cost of the costliest pack over the mean in a step of 64 ranks, as planned and in random order.
The cost of a pack is the sum of the squared lengths.
"""

import sys
import time

import numpy as np

from vlmdata.loader.order.packing import Packs, pack

SIZES = (2048, 4096, 8192, 32768)
FEWEST_FIT = 0.7  # a pack size is skipped if fewer samples fit into it; samples that do not fit are left out


def shapes(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)

    def text(middle: float, spread: float, most: int, some: int = count) -> np.ndarray:
        return np.minimum(random.lognormal(middle, spread, some), most).astype(np.int64)

    half, quarter = count // 2, count // 4
    rest = count - half - quarter
    return {
        "576 + text of about 217": 576 + text(5.2, 0.6, 3500),
        "144 + captions of about 28": 144 + text(3.2, 0.5, 200),
        "1 to 4 tiles of 729 + text": random.integers(1, 5, count) * 729 + text(4.5, 0.7, 1500),
        "half 576 + text, a quarter captions, a quarter text": np.concatenate(
            [
                576 + text(5.2, 0.6, 3500, half),
                144 + text(3.2, 0.5, 200, quarter),
                1 + text(5.5, 0.9, 6000, rest),
            ]
        ),
        "pages: 1 to 8 images of 144 + text": np.minimum(random.integers(1, 9, count) * 144 + text(6.2, 0.8, 6000), 8000),
        "native: 256 to 4,096 + text": np.exp(random.uniform(np.log(256), np.log(4096), count)).astype(np.int64)
        + text(4.5, 0.7, 1500),
        "52 to 64": random.integers(52, 65, count),
    }


def between_packs(packs: Packs, lengths: np.ndarray) -> tuple[float, float]:
    """Return the share of the variance of the lengths that is between packs, and the share expected of random packs."""
    counts = np.diff(packs.starts)
    means = np.add.reduceat(lengths[packs.members].astype(float), packs.starts[:-1]) / counts
    spread = np.average((means - lengths.mean()) ** 2, weights=counts) / lengths.var()
    return float(spread), len(counts) / len(lengths)


def costliest(cost: np.ndarray, ranks: int = 64) -> float:
    steps = cost[: len(cost) // ranks * ranks].reshape(-1, ranks)
    return float((steps.max(axis=1) / steps.mean(axis=1)).mean())


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1 << 20
    print(f"| lengths, {count:,} samples | tokens | padding | mixed / at random | costliest / at random | plan, CPU s |")
    print("|---|---|---|---|---|---|")
    for name, every in shapes(count).items():
        for size in SIZES:
            lengths = every[every <= size]
            if len(lengths) < len(every) * FEWEST_FIT:
                continue
            start = time.process_time()
            packs = pack(lengths, size)
            took = time.process_time() - start
            mixed, chance = between_packs(packs, lengths)
            cost = np.add.reduceat(lengths[packs.members].astype(float) ** 2, packs.starts[:-1])
            shuffled = np.random.default_rng(1).permutation(cost)
            print(
                f"| {name} | {size:,} | {packs.padding:.2%} | {mixed:.2f} / {chance:.2f} "
                f"| {costliest(cost):.3f} / {costliest(shuffled):.2f} | {took:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
