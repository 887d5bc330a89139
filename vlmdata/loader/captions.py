"""Draws one of the captions of a sample, by weights for the origins of captions.

A group of captions is `raw` (the main caption and the alternatives from the source), or all captions that one step wrote. In
the weights, a key is `raw`, the name of a step, or `synthetic`: every step that is not a key. The draw takes one of the groups
that the sample has, with a probability proportional to its weight, and then one caption of the group uniformly. A group
without a weight has the weight 0. If all groups of a sample have the weight 0, its captions are equally likely. A blank caption
is drawn only if all captions of the sample are blank.

N samples, C captions of all these samples together, G weights: of `raw`, of `synthetic`, of each named step. The draw uses
arrays also for a single sample, so that `Lengths` and `drawn_caption` round in the same way.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from vlmdata.fields import RAW, aligned_origins
from vlmdata.loader.order.order import Ints
from vlmdata.splitmix import mixed
from vlmdata.text.blank import is_blank

SYNTHETIC = "synthetic"  # key of the captions of all steps without a key
BLANK = ""  # stands for the origin of a blank caption
Weights = Mapping[str, float]
Floats = NDArray[np.float64]
_OF_GROUP, _IN_GROUP = np.uint64(0xD1B54A32D192ED03), np.uint64(0x8CB92BA72F3D8DD7)  # random odd numbers


def captions_of(caption: str, facts: dict[str, Any]) -> list[str]:
    """Return the captions that a sample may draw: the caption itself and the strings in the list `facts["alternatives"]`.

    Blank captions are left out, such as the text of a picture that a step captioned. If all captions are blank, they stay.
    """
    return [text for text, _ in _with_origins(caption, facts)]


def origins_of(caption: str, facts: dict[str, Any]) -> list[str | None]:
    """Return the origin of each caption that `captions_of` returns.

    It is the name of the step that wrote the caption, None for a caption from the source, and "" for a blank caption.
    """
    return [BLANK if is_blank(text) else origin for text, origin in _with_origins(caption, facts)]


def _with_origins(caption: str, facts: dict[str, Any]) -> list[tuple[str, str | None]]:
    others = facts.get("alternatives")
    pairs = zip(others if isinstance(others, list) else (), aligned_origins(others, facts.get("origins")), strict=True)
    both = [(caption, None), *((text, origin) for text, origin in pairs if isinstance(text, str))]
    return [pair for pair in both if not is_blank(pair[0])] or both


def drawn_caption(caption: str, facts: dict[str, Any], seed: int, weights: Weights | None = None) -> str:
    """Return one of the captions that `captions_of` returns: the caption itself, or an alternative.

    Without weights, all of them are equally likely. `facts` is the sample's JSON, and `seed` is the `__seed__` of the sample.
    """
    captions = captions_of(caption, facts)
    if weights is None or len(captions) == 1:
        return captions[draw(seed, len(captions))]
    codes = np.array([code_of(origin) for origin in origins_of(caption, facts)])
    seeds = np.array([seed & (1 << 64) - 1], np.uint64)
    return captions[draw_by_weights(seeds, codes, np.array([0, len(captions)]), table_of(weights)).item()]


def draw(seeds: Any, count: Any) -> Any:
    """Return the index of the caption that a sample draws from its `count` captions, in [0, `count`), without weights.

    Caption 0 is the main caption. `seeds` is the `__seed__` of the sample. For several samples, both arguments are arrays.
    """
    return seeds % count


def code_of(origin: str | None) -> int:
    """Return a number for an origin, as `origins_of` returns it: 0 for None, 1 for blank, and a hash of 63 bits for a name."""
    if not origin:
        return 0 if origin is None else 1
    return max(2, xxhash.xxh3_64_intdigest(origin.encode("utf-8", "surrogatepass")) >> 1)


class WeightTable(NamedTuple):
    """Weights of captions as arrays: `weights` (G,) relative to the largest one, and `codes` (G - 2,) of the named steps."""

    weights: Floats
    codes: Ints

    def groups(self, codes: Ints) -> Ints:
        """Return the group of each caption: its index in `weights`, or G for a blank caption."""
        groups = np.where(codes == 0, 0, 1)
        groups[codes == 1] = len(self.weights)
        for number, code in enumerate(self.codes.tolist(), 2):
            groups[codes == code] = number
        return groups


def table_of(weights: Weights) -> WeightTable:
    """Return the weights as arrays. They must have passed `check_weights`."""
    return _table(tuple(sorted((name, float(weight)) for name, weight in weights.items())))


@lru_cache(maxsize=64)
def _table(items: tuple[tuple[str, float], ...]) -> WeightTable:
    given = dict(items)
    names = sorted(given.keys() - {RAW, SYNTHETIC})
    weights = np.array([given.get(name, 0.0) for name in (RAW, SYNTHETIC, *names)])
    return WeightTable(weights / weights.max(), np.array([code_of(name) for name in names], np.int64))


def count_groups(groups: Ints, starts: Ints, table: WeightTable) -> Ints:
    """Return how many captions of each group a sample has, (N, G + 1), with blank captions last.

    Sample n has the captions `groups[starts[n]:starts[n + 1]]`.
    """
    width = len(table.weights) + 1
    cells = np.repeat(np.arange(len(starts) - 1) * width, np.diff(starts)) + groups
    return np.bincount(cells, minlength=(len(starts) - 1) * width).reshape(-1, width)


def chances(counts: Ints, table: WeightTable) -> Floats:
    """Return how likely each group of a sample is, relative to its other groups: (N, G + 1) -> (N, G + 1)."""
    found = np.zeros(counts.shape)
    found[:, :-1] = (counts[:, :-1] > 0) * table.weights
    unweighted = ~found.any(axis=1)
    found[unweighted, :-1] = counts[unweighted, :-1]  # so that all captions are equally likely
    found[~found.any(axis=1), -1] = 1
    return found


def draw_by_weights(seeds: NDArray[np.uint64], codes: Ints, starts: Ints, table: WeightTable) -> Ints:
    """Return the index of the caption that each sample draws, (N,), in [0, number of its captions).

    Sample n has the seed `seeds[n]` and the captions with the codes `codes[starts[n]:starts[n + 1]]`.
    """
    groups = table.groups(codes)
    counts = count_groups(groups, starts, table)
    sums = np.cumsum(chances(counts, table), axis=1)
    number = (mixed(seeds ^ _OF_GROUP) >> np.uint64(11)).astype(np.float64) * 2.0**-53  # in [0, 1)
    limit = np.minimum(number * sums[:, -1], np.nextafter(sums[:, -1], 0))  # a product may round up to the sum
    group = (sums <= limit[:, None]).sum(axis=1)
    rows = np.arange(len(counts))
    place = (mixed(seeds ^ _IN_GROUP) % counts[rows, group].astype(np.uint64)).astype(np.int64)
    before = np.cumsum(counts, axis=1)[rows, group] - counts[rows, group]  # captions of earlier groups of the sample
    by_group = np.lexsort((groups, np.repeat(rows, np.diff(starts))))  # stable: by sample, then by group
    return by_group[starts[:-1] + before + place] - starts[:-1]
